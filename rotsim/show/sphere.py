"""Walks of many dimensions on an ordinary sphere, in a picture that keeps the angle of every step."""

from __future__ import annotations

import numpy as np

#: Where paths begin: x to the right, y upwards, z towards the eye.
STARTS = np.array([[0.1, 0.55, 0.83], [-0.6, -0.3, 0.74], [0.6, -0.35, 0.72]])


class Rolling:
    """Directions of weight vectors, each followed by a point on a sphere.

    A weight vector carries a plane along, which touches its own sphere and never spins. The point carries a plane of
    the same kind. In every step the point goes by the vector's true angle, and in the direction that the vector's
    plane sees. In three dimensions the path is the walk itself, turned as a whole.

    Parameters
    ----------
    weights : ndarray, shape (neurons, dim)
        At the start, dim >= 3.
    """

    def __init__(self, weights: np.ndarray) -> None:
        self._direction = _unit(weights.astype(np.float64))
        least = np.argsort(np.abs(self._direction), axis=1)[:, :2]  # these coordinates lie most nearly across
        axes = (least[..., None] == np.arange(weights.shape[1])).astype(np.float64)
        self._plane = _touching(axes, self._direction)
        self.points = _unit(np.resize(STARTS, (len(weights), 3)))
        upwards = np.broadcast_to(np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]), (len(weights), 2, 3))
        self._seen = _touching(upwards, self.points)

    def follow(self, weights: np.ndarray) -> np.ndarray:
        """Go one step further.

        Parameters
        ----------
        weights : ndarray, shape (neurons, dim)
            After the step.

        Returns
        -------
        ndarray, shape (neurons, 3)
            The new points, of length 1.
        """
        new = _unit(weights.astype(np.float64))
        chord, sum_ = new - self._direction, new + self._direction
        angle = 2 * np.arctan2(np.linalg.norm(chord, axis=1), np.linalg.norm(sum_, axis=1))
        heading = _unit(chord - (chord * self._direction).sum(axis=1, keepdims=True) * self._direction)
        seen = _unit(np.einsum("nkd,nd->nk", self._plane, heading))
        course = np.einsum("nk,nkd->nd", seen, self._seen)
        _, self._plane = _carried(self._direction, heading, angle, self._plane)
        self.points, self._seen = _carried(self.points, course, angle, self._seen)
        self._direction, self._plane = new, _touching(self._plane, new)
        return self.points


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Of length 1; a vector of zeros stays."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)


def _touching(plane: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Two orthonormal axes across `direction`, from two that are so nearly."""
    first = plane[:, 0] - (plane[:, 0] * direction).sum(axis=1, keepdims=True) * direction
    first = _unit(first)
    second = plane[:, 1] - (plane[:, 1] * direction).sum(axis=1, keepdims=True) * direction
    second = _unit(second - (second * first).sum(axis=1, keepdims=True) * first)
    return np.stack([first, second], axis=1)


def _carried(
    point: np.ndarray, heading: np.ndarray, angle: np.ndarray, plane: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A point that goes by an angle along a great circle, and its plane, which does not spin on the way."""
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    arrived = _unit(cos * point + sin * heading)
    ahead = np.einsum("nkd,nd->nk", plane, heading)
    turned = plane + ahead[:, :, None] * ((cos - 1) * heading - sin * point)[:, None, :]
    return arrived, _touching(turned, arrived)
