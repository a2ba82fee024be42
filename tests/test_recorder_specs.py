"""Which spec stands for which parameter group; stand-ins have the names and fields of other packages' optimizers."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import rotsim  # noqa: E402
import rotsim.measure  # noqa: E402
from rotsim.dataset import load, optimizer_of, spec_of  # noqa: E402
from rotsim.diagnosis import diagnose  # noqa: E402
from rotsim.errors import InvalidInput  # noqa: E402
from rotsim.measure import Recorder, optimizer_spec  # noqa: E402
from rotsim.measure.spec import FAMILIES, rates_in_force  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

nn = torch.nn


def optimizer_class(name, **fixed):
    """An optimizer class of another package: its name, the defaults of its groups, attributes of its own."""

    def __init__(self, params, **defaults):
        attributes = {key: defaults.pop(key) for key in list(defaults) if key in fixed}
        torch.optim.Optimizer.__init__(self, params, defaults)
        vars(self).update({**fixed, **attributes})

    return type(name, (torch.optim.Optimizer,), {"__init__": __init__, "step": lambda self, closure=None: None})


def weights(count=1):
    return [nn.Parameter(torch.ones(2, 3)) for _ in range(count)]


ADAM = {"lr": 1e-3, "betas": (0.9, 0.95), "eps": 1e-6, "weight_decay": 0.1}
LION = {"lr": 1e-4, "betas": (0.9, 0.98), "weight_decay": 0.3}
ADAMW_SPEC = rotsim.AdamW(1e-3, 0.1, (0.9, 0.95), 1e-6)
ADEMAMIX_SPEC = rotsim.AdEMAMix(1e-3, 0.1, (0.9, 0.95, 0.999), 5.0, 1e-6)
LION_SPEC = rotsim.Lion(1e-4, 0.3, (0.9, 0.98))
BITSANDBYTES = {"alpha": 0.0, "t_alpha": None, "t_beta3": None}

RECOGNISED = {
    "lion-pytorch": ("Lion", LION | {"cautious_factor": 1.0}, {"decoupled_wd": False, "_init_lr": 1e-4}, LION_SPEC),
    "lion-pytorch, decoupled": (
        "Lion",
        LION | {"weight_decay": 3e-5, "lr": 1e-4},
        {"decoupled_wd": True, "_init_lr": 1e-4},
        LION_SPEC,
    ),
    "timm": ("Lion", LION | {"caution": False, "maximize": False, "foreach": None}, {}, LION_SPEC),
    "timm legacy": ("AdamWLegacy", ADAM | {"amsgrad": False, "caution": False}, {}, ADAMW_SPEC),
    "bitsandbytes Lion": ("PagedLion8bit", LION | {"eps": 0.0}, {"optimizer_name": "lion"}, LION_SPEC),
    "bitsandbytes AdamW": ("AdamW8bit", ADAM | BITSANDBYTES, {"optimizer_name": "adam"}, ADAMW_SPEC),
    "bitsandbytes Adam": ("PagedAdam32bit", ADAM | BITSANDBYTES, {"optimizer_name": "adam"}, ADAMW_SPEC),
    "torchao": ("AdamW4bit", ADAM | {"amsgrad": False}, {}, ADAMW_SPEC),
    "Apex": ("FusedAdam", ADAM | {"bias_correction": True}, {"adam_w_mode": 1}, ADAMW_SPEC),
    "Apex, L2": ("FusedAdam", ADAM, {"adam_w_mode": 0}, rotsim.AdamL2(1e-3, 0.1, (0.9, 0.95), 1e-6)),
    "AdEMAMix of its authors": (
        "AdEMAMix",
        ADAM | {"betas": (0.9, 0.95, 0.999), "alpha": 5.0, "alpha_warmup": None, "beta3_warmup": None},
        {},
        ADEMAMIX_SPEC,
    ),
    "bitsandbytes AdEMAMix": (
        "PagedAdEMAMix8bit",
        ADAM | {"betas": (0.9, 0.95, 0.999), "alpha": 5.0, "t_alpha": None, "t_beta3": None},
        {"optimizer_name": "ademamix"},
        ADEMAMIX_SPEC,
    ),
    "nanochat": ("MuonAdamW", ADAM | {"kind": "adamw"}, {}, ADAMW_SPEC),
    "cautious AdamW": ("AdamW", ADAM | {"cautious_wd": True}, {}, rotsim.Cautious(ADAMW_SPEC)),
    "cautious Lion": ("Lion", LION, {"cautious_weight_decay": True}, rotsim.Cautious(LION_SPEC)),
    "Lion, not cautious": ("Lion", LION | {"cautious_wd": False}, {}, LION_SPEC),
    "Signum without decay": (
        "Signum",
        {"lr": 1e-3, "momentum": 0.8, "weight_decay": 0.0},
        {},
        rotsim.Signum(1e-3, 0.0, 0.8),
    ),
    "Signum, decoupled": (
        "Signum",
        {"lr": 1e-3, "momentum": 0.8, "weight_decay": 0.1, "weight_decouple": True, "fixed_decay": False},
        {},
        rotsim.Signum(1e-3, 0.1, 0.8),
    ),
    "Muon of its author": (
        "Muon",
        {"lr": 0.02, "momentum": 0.8, "nesterov": False, "ns_steps": 6},
        {"rank": 0, "world_size": 1},
        rotsim.Muon(0.02, 0.0, 0.8, False, ns_steps=6),
    ),
    "Muon's own Adam": ("SingleDeviceMuonWithAuxAdam", ADAM | {"use_muon": False}, {}, ADAMW_SPEC),
}


@pytest.mark.parametrize("package", RECOGNISED)
def test_optimizers_of_other_packages_are_recognised(package):
    name, defaults, attributes, spec = RECOGNISED[package]
    optimizer = optimizer_class(name, **attributes)(weights(), **defaults)
    assert optimizer_spec(optimizer).describe() == spec.describe()
    assert rates_in_force(optimizer, optimizer.param_groups[0]) == pytest.approx((spec.lr, spec.weight_decay))


@pytest.mark.parametrize(
    ("name", "defaults", "attributes", "why"),
    [
        ("Lion", LION | {"caution": True}, {}, "caution=True changes the recurrence"),
        ("Lion", LION | {"cautious_factor": 0.5}, {}, "cautious_factor=0.5 changes"),
        ("AdamW", ADAM | {"corrected_weight_decay": True}, {}, "corrected_weight_decay=True changes"),
        (
            "AdEMAMix",
            ADAM | {"betas": (0.9, 0.95, 0.999), "alpha": 5.0, "alpha_warmup": None, "beta3_warmup": 1000},
            {},
            "beta3_warmup=1000 makes its slow average change in training",
        ),
        ("AdamW", ADAM | {"correct_bias": False}, {}, "correct_bias=False changes"),
        (
            "SGD",
            {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "cautious_wd": True},
            {},
            "cautious_wd=True changes the recurrence, which is not known of SGDM",
        ),
        (
            "Signum",
            {"lr": 1e-3, "momentum": 0.8, "weight_decay": 0.1},
            {},
            "nothing says that its weight decay is beside",
        ),
        ("Muon", {"lr": 1e-3, "momentum": 0.8, "weight_decay": 0.1}, {}, "its update rule is unknown"),  # another's
        (
            "Muon",  # Moonlight's: another factor, and its decay has another name
            {"lr": 1e-3, "momentum": 0.8, "nesterov": True, "ns_steps": 5, "wd": 0.1, "adamw_eps": 1e-8},
            {},
            "wd, adamw_eps may make it another one than its author's",
        ),
        ("AdamW8bit", ADAM, {"args": type("MockArgs", (), {})}, None),
        ("AdamW", {"lr": 1e-3, "weight_decay": 0.1}, {}, "its update rule is unknown"),  # none of AdamW's fields
    ],
)
def test_an_option_that_changes_the_recurrence_is_refused(name, defaults, attributes, why):
    if why is None:  # bitsandbytes keeps its options in an object of their own
        options = attributes["args"]()
        optimizer = optimizer_class(name)(weights(), **defaults)
        optimizer.args, options.max_unorm = options, 0.0
        assert optimizer_spec(optimizer) == ADAMW_SPEC
        options.max_unorm, why = 0.5, "max_unorm=0.5 changes"
    else:
        optimizer = optimizer_class(name, **attributes)(weights(), **defaults)
    with pytest.raises(InvalidInput, match=why):
        optimizer_spec(optimizer)


@pytest.mark.parametrize(
    ("name", "defaults", "proposal"),
    [
        ("Sophia", ADAM, rotsim.AdamW(1e-3, 0.1, (0.9, 0.95), 1e-6)),
        ("Tiger", LION, LION_SPEC),
        ("LARS", {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}, rotsim.SGDM(0.1, 1e-4, 0.9)),
        ("Prodigy", {"lr": 0.1}, rotsim.SGDM(0.1, 0.0, 0.0)),
    ],
)
def test_what_is_not_recognised_gets_the_spec_to_pass_filled_in(name, defaults, proposal):
    """The proposal is code: run, it makes the spec; and it is in the trace's own words too."""
    optimizer = optimizer_class(name)(weights(), **defaults)
    with pytest.raises(InvalidInput, match=f"this {name}: its update rule is unknown") as caught:
        optimizer_spec(optimizer)
    code = str(caught.value).split("Recorder(..., spec=")[1].removesuffix(")")
    assert eval(code, {"rotsim": rotsim}) == proposal
    recorded = Recorder({"w": optimizer.param_groups[0]["params"][0]}, optimizer)
    assert f"pass spec={code}" in recorded._recorded.specs()["w"].refusal()


def test_rotated_is_predicted_by_the_spec_that_sets_its_angle():
    spec = rotsim.AdamW(1e-3, 0.1, (0.9, 0.95))
    inner = torch.optim.Adam(weights(), lr=0.01, weight_decay=0.2)
    optimizer = rotsim.measure.Rotated(inner, spec, zero_mean=False)
    assert optimizer_spec(optimizer) == rotsim.Rotational(spec, zero_mean=False)
    assert rates_in_force(optimizer, optimizer.param_groups[0]) == (1e-3, 0.1)
    by_hand = rotsim.measure.Rotated(torch.optim.Adam(weights(), lr=0.01, weight_decay=0.2), 0.01)
    with pytest.raises(InvalidInput, match="its angle is a number or a function of yours"):
        optimizer_spec(by_hand)


class TwoRules(torch.optim.Optimizer):
    """As nanochat's: every group names its rule."""

    def __init__(self, groups):
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                decayed = parameter * (1 - group["lr"] * group["weight_decay"])
                parameter.copy_(decayed - group["lr"] * parameter.grad.sign())


def train(model, optimizer, steps):
    draw = torch.Generator().manual_seed(0)
    for _ in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=draw)
        optimizer.step()


def test_every_group_has_its_own_spec_in_the_dataset_and_in_the_report(tmp_path):
    model = nn.ModuleDict({name: nn.Linear(6, 5, bias=False) for name in ("embedding", "hidden", "head")})
    parameters = [list(layer.parameters()) for layer in model.values()]
    groups = [
        ADAM | {"params": parameters[0], "kind": "adamw"},
        {"params": parameters[1], "kind": "shampoo", "lr": 0.02, "weight_decay": 0.1},
        LION | {"params": parameters[2], "kind": "lion"},
    ]
    optimizer = TwoRules(groups)
    with Recorder(model, optimizer, interval=2, window=4, lags=2, path=tmp_path / "trace.nc"):
        train(model, optimizer, 48)
        optimizer.param_groups[2]["betas"] = (0.5, 0.9)  # in the middle of the run
        train(model, optimizer, 48)
    trace = load(tmp_path / "trace.nc")
    assert optimizer_of(trace) == optimizer_of(trace, "embedding.weight") == ADAMW_SPEC
    assert optimizer_of(trace, "head.weight") == rotsim.Lion(1e-4, 0.3, (0.5, 0.9))
    assert optimizer_of(trace, "hidden.weight").refusal().startswith("rotsim has no theory for this TwoRules")
    assert set(spec_of(trace)["optimizers"]) == {"hidden.weight", "head.weight"}
    assert spec_of(trace)["changed"] == {"head.weight": {"momentum": 50}}
    assert set(trace["row_layer"].values) == {"head.weight"}  # the series that only Lion needs
    assert trace["square_step"].notnull().values.tolist() == [True, False, False]
    embedding, hidden, head = diagnose(trace).layers
    assert hidden.verdict == "no theory" != embedding.verdict and head.verdict != "no theory"


def test_groups_with_their_own_betas_are_predicted_by_them():
    model = nn.Sequential(nn.Linear(64, 32, bias=False), nn.Linear(64, 32, bias=False))
    betas = ((0.0, 0.95), (0.9, 0.95))
    groups = [{"params": layer.parameters(), "betas": pair} for layer, pair in zip(model, betas, strict=True)]
    optimizer = torch.optim.AdamW(groups, lr=0.02, weight_decay=0.5)
    with Recorder(model, optimizer, interval=2, window=20, lags=0) as recorder:
        train(model, optimizer, 600)
    trace = recorder.dataset()
    found = diagnose(trace).layers
    for layer, pair in zip(found, betas, strict=True):
        theory = rotsim.equilibrium(rotsim.AdamW(0.02, 0.5, pair), dim=64).rotation
        assert layer.quarters[-1].predicted_rotation == pytest.approx(theory, rel=0.03)
        assert layer.quarters[-1].measured_rotation == pytest.approx(theory, rel=0.03)
    # the negative control: one spec for both would be wrong by this factor
    assert found[0].measured_rotation > 3 * found[1].measured_rotation


class CautiousAdamW(torch.optim.AdamW):
    """Chen et al. 2025: what AdamW does without decay, and decay where the update, too, points towards 0."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            before = [p.clone() for p in group["params"]]
            decay, group["weight_decay"] = group["weight_decay"], 0.0
            super().step()
            group["weight_decay"] = decay
            for weight, old in zip(group["params"], before, strict=True):
                weight -= group["lr"] * decay * old * ((old - weight) * old >= 0)


CautiousAdamW.__name__ = "AdamW"


class AdamH(torch.optim.Adam):
    """Wen et al. 2026: the norm of a matrix is held, or with `per_row` that of each row."""

    per_row = False

    @torch.no_grad()
    def step(self, closure=None):
        of = {"dim": 1, "keepdim": True} if self.per_row else {}
        for group in self.param_groups:
            before = [p.clone() for p in group["params"]]
            super().step()
            for weight, old in zip(group["params"], before, strict=True):
                update, norm = weight - old, torch.linalg.vector_norm(old, **of)
                moved = old + group["lr"] * norm * update / torch.linalg.vector_norm(update, **of)
                weight.copy_(norm * moved / torch.linalg.vector_norm(moved, **of))


class RowwiseAdamH(AdamH):
    per_row = True


BALL = rotsim.Hyperball(rotsim.AdamW(0.02, 0.0, (0.9, 0.95)))
RULES = {
    "cautious": (
        lambda p: with_option(CautiousAdamW(p, lr=0.02, weight_decay=0.5, betas=(0.9, 0.95)), cautious_wd=True),
        rotsim.Cautious(rotsim.AdamW(0.02, 0.5, (0.9, 0.95))),
        "under gradients that are no white noise is not known",
    ),
    "hyperball": (lambda p: AdamH(p, lr=0.02, betas=(0.9, 0.95)), BALL, None),
    "hyperball of rows": (lambda p: RowwiseAdamH(p, lr=0.02, betas=(0.9, 0.95)), BALL, None),
    "Muon": (
        lambda p: torch.optim.Muon(p, lr=0.02, weight_decay=0.5, momentum=0.8, adjust_lr_fn="match_rms_adamw"),
        rotsim.Muon(0.02, 0.5, 0.8, adjust_lr_fn="match_rms_adamw"),
        "takes the singular values of gradients as those of white noise",
    ),
    "Nesterov": (
        lambda p: torch.optim.SGD(p, lr=0.5, weight_decay=0.02, momentum=0.8, nesterov=True),
        rotsim.SGDM(0.5, 0.02, 0.8, nesterov=True),
        "under Nesterov momentum is not known in theory",
    ),
    "dampening": (
        lambda p: torch.optim.SGD(p, lr=1.0, weight_decay=0.02, momentum=0.8, dampening=0.5),
        rotsim.SGDM(1.0, 0.02, 0.8, dampening=0.5),
        None,
    ),
}


def with_option(optimizer, **options):
    """Its groups, with options of another package."""
    optimizer.param_groups[0].update(options)
    return optimizer


@pytest.mark.few(1)
@pytest.mark.parametrize("name", RULES)
def test_a_course_has_the_shape_of_the_layer_and_claims_what_theory_can(name):
    """On white noise orthogonal to the weights even what is not claimed must agree; a square matrix would not."""
    make, spec, refusal = RULES[name]
    rows = 24 if spec.acts_on == "matrix" else None
    theory, draw = rotsim.equilibrium(spec, 96, rows=rows), torch.Generator().manual_seed(0)
    held = spec.name == "hyperball"  # which nothing says of an optimizer
    weight = nn.Parameter(torch.randn(24, 96, generator=draw) * (1.0 if held else theory.norm) / 96**0.5)
    optimizer = make([weight])
    assert held or optimizer_spec(optimizer) == spec
    given = spec if held else None
    with Recorder({"weight": weight}, optimizer, interval=2, window=20, lags=0, spec=given) as recorder:
        for _ in range(600):
            along = nn.functional.normalize(weight.detach(), dim=1)
            noise = torch.randn(weight.shape, generator=draw)
            noise -= along * torch.linalg.vecdot(noise, along)[:, None]
            weight.grad = noise / weight.detach().norm(dim=1, keepdim=True)
            optimizer.step()
    [layer] = diagnose(recorder.dataset()).layers
    last = layer.quarters[-1]
    assert last.predicted_rotation == pytest.approx(theory.rotation, rel=0.02)
    assert last.measured_rotation == pytest.approx(theory.rotation, rel=0.04)
    assert last.measured_norm == pytest.approx(last.predicted_norm, rel=0.05)
    if rows:  # the negative control
        assert layer.stable_rank == pytest.approx(layer.white_rank, rel=0.2) and layer.white_rank < 12
        assert f"stable rank of its averages was {layer.stable_rank:.2g}" in layer.reason
        assert abs(rotsim.equilibrium(spec, 96).rotation / theory.rotation - 1) > 0.08
    if refusal:
        assert layer.verdict == "unknown" and not layer.claims and refusal in layer.reason
    else:
        assert layer.applies and layer.agrees


@pytest.mark.parametrize(("nesterov", "momentum", "verdict"), [(False, 0.5, None), (True, 0.0, "no theory")])
def test_a_momentum_that_changes_is_followed(nesterov, momentum, verdict):
    weight = nn.Parameter(torch.randn(8, 16, generator=torch.Generator().manual_seed(0)))
    optimizer = torch.optim.SGD([weight], lr=0.1, weight_decay=0.02, momentum=0.8, nesterov=nesterov)
    with Recorder({"weight": weight}, optimizer, interval=1, window=4, lags=2) as recorder:
        for step in range(96):
            optimizer.param_groups[0]["momentum"] = 0.8 if step < 48 else momentum
            weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(step + 1))
            optimizer.step()
    [layer] = diagnose(recorder.dataset()).layers
    assert layer.verdict == verdict if verdict else layer.predicted_rotation > 0


def test_a_spec_may_be_given_group_by_group():
    model = nn.Sequential(nn.Linear(3, 2, bias=False), nn.Linear(3, 2, bias=False))
    optimizer = optimizer_class("Sophia")([{"params": layer.parameters()} for layer in model], **ADAM)
    given = [rotsim.SGDM(0.1, 0.2), None]
    specs = Recorder(model, optimizer, spec=given)._recorded.specs()
    assert specs["0.weight"] == given[0] and specs["1.weight"].name == "unmodelled"
    with pytest.raises(InvalidInput, match="`spec` must hold one spec or None for each of the 2 parameter groups"):
        Recorder(model, optimizer, spec=given[:1])
    with pytest.raises(InvalidInput, match="`spec` must be a rotsim optimizer"):
        Recorder(model, optimizer, spec=[1, 2])


def test_families_have_names_of_their_own():
    names = [name for family in FAMILIES for name in family.names]
    assert all(name == name.lower() for name in names)
