"""Trajectories of latents in two dimensions: the plane in which the true targets differ most.

Axes: N rows, K latent steps, D hidden size.
"""

from dataclasses import dataclass
from html import escape

import numpy as np
import torch

from storm_hf.target_trajectory.whiten import principal_components


_SIZE_PX, _MARGIN_PX = 320, 24
_COLOURS = {"true": "var(--neutral, #6c6c78)", "imagined": "var(--accent, #5a3fd4)"}


@dataclass(frozen=True, eq=False)
class Plane:
    """Two axes through the targets of a data set.

    Args:
        mean (`np.ndarray` of shape `(hidden_size,)`):
            Origin of the plane.
        axes (`np.ndarray` of shape `(hidden_size, 2)`):
            Principal components, each with its largest element positive.
        explained (`float`):
            Share of the variance that lies in the plane. Of whitened targets of rank r it is little more than 2 / r.
    """

    mean: np.ndarray
    axes: np.ndarray
    explained: float

    @classmethod
    def fit(cls, targets: np.ndarray) -> "Plane":
        """Find the plane of targets of shape `(..., hidden_size)`.

        Raises:
            TrajectoryShapeError: If they are all the same.
        """
        flat = targets.reshape(-1, targets.shape[-1]).astype(np.float64)
        mean = flat.mean(axis=0)
        covariance = torch.from_numpy((flat - mean).T @ (flat - mean) / len(flat))
        variances, components = principal_components(covariance)
        return cls(mean, components[:, :2].numpy(), float(variances[:2].sum() / variances.sum()))

    def __call__(self, latents: np.ndarray) -> np.ndarray:
        """Project latents of shape `(..., hidden_size)` to points of shape `(..., 2)`."""
        return np.asarray((latents.astype(np.float64) - self.mean) @ self.axes)


def path_chart(plane: Plane, targets: np.ndarray, true: np.ndarray, imagined: np.ndarray, *, title: str) -> str:
    """Draw the path of true targets and of imagined latents over the cloud of all targets.

    Args:
        plane ([`Plane`]):
            Plane of the projection.
        targets (`np.ndarray` of shape `(..., hidden_size)`):
            The cloud.
        true (`np.ndarray` of shape `(num_latents, hidden_size)`):
            Of the thought video.
        imagined (`np.ndarray` of shape `(num_latents, hidden_size)`):
            Of the model.
        title (`str`):
            Title of the chart, for screen readers.

    Returns:
        `str`: An `<svg>` element.
    """
    cloud = plane(targets).reshape(-1, 2)
    paths = {"true": plane(true), "imagined": plane(imagined)}
    everything = np.concatenate([cloud, *paths.values()])
    low, high = everything.min(axis=0), everything.max(axis=0)
    scale = (_SIZE_PX - 2 * _MARGIN_PX) / np.maximum(high - low, 1e-9)

    def place(points: np.ndarray) -> np.ndarray:
        x, y = ((points - low) * scale + _MARGIN_PX).T
        return np.stack([x, _SIZE_PX - y], axis=1)

    parts = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="var(--quiet, #c9c9d3)"/>' for x, y in place(cloud)]
    for name, points in paths.items():
        parts.append(_path(place(points), _COLOURS[name]))
    return (
        f'<svg class="chart" role="img" viewBox="0 0 {_SIZE_PX} {_SIZE_PX}" width="{_SIZE_PX}" height="{_SIZE_PX}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _path(points: np.ndarray, colour: str) -> str:
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    numbers = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'
        f'<text x="{x + 6:.1f}" y="{y - 6:.1f}" font-size="12" fill="{colour}">{step}</text>'
        for step, (x, y) in enumerate(points, start=1)
    )
    return f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>{numbers}'
