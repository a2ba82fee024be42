"""The schedules of `rotsim.schedules`, under the name that they have always had."""

from rotsim.schedules import Factors as Factors
from rotsim.schedules import constant as constant
from rotsim.schedules import cosine as cosine
from rotsim.schedules import linear as linear
from rotsim.schedules import warmup as warmup
from rotsim.schedules import wsd as wsd
