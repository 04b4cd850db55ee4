"""Saves and loads a dataset as a folder of files that numpy, scipy and a JSON reader can read.

als_interactions.npz     the weighted matrix (scipy.sparse.load_npz)
als_user_mapping.json    row -> user id
als_item_mapping.json    column -> item id
sequences.npz            the events
dataset.json             positions W, counts, sha256
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from core.errors import DatasetError, ModelError
from models.id_map import IdMap
from training.data.columns import Array, pieces
from training.data.dataset import COLUMNS, Dataset


def save(
    dataset: Dataset, folder: Path, *, matrix: sp.csr_matrix | None = None, sequences: bool = True
) -> None:
    """Write the files of the module docstring into `folder`, dataset.json last.

    A folder without dataset.json is incomplete.

    `matrix`: `dataset.matrix()`, if already computed. `sequences` False: without sequences.npz, so
    that `load` cannot read the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").unlink(missing_ok=True)
    sp.save_npz(
        folder / "als_interactions.npz",
        dataset.matrix() if matrix is None else matrix,
        compressed=False,
    )
    dataset.users.save(folder / "als_user_mapping.json")
    dataset.items.save(folder / "als_item_mapping.json")
    if sequences:
        arrays = {name: getattr(dataset, name) for name in COLUMNS}
        _write_arrays(folder / "sequences.npz", {"indptr": dataset.indptr, **arrays})
    (folder / "dataset.json").write_text(json.dumps(dataset.summary(), indent=2) + "\n", "utf-8")


def load(folder: Path) -> Dataset:
    """Read what `save` wrote. Raises DatasetError when it is missing, incomplete or changed."""
    try:
        summary = json.loads((folder / "dataset.json").read_text("utf-8"))
        with np.load(folder / "sequences.npz", allow_pickle=False) as arrays:
            dataset = Dataset(
                users=IdMap.load(folder / "als_user_mapping.json"),
                items=IdMap.load(folder / "als_item_mapping.json"),
                event_types=summary["event_types"],
                use_cases=summary["use_cases"],
                positions={
                    int(partition): offset for partition, offset in summary["positions"].items()
                },
                source=summary["source"],
                skipped=summary["skipped"],
                **{name: arrays[name] for name in arrays.files},
            )
    except (OSError, KeyError, ValueError, TypeError, ModelError) as error:
        raise DatasetError(
            f"{folder} is no complete dataset ({error}); make it with `python -m training "
            f"dataset --output {folder}`"
        ) from None
    if dataset.sha256 != summary["sha256"]:
        raise DatasetError(
            f"{folder}: the files are not those that dataset.json describes; make the dataset again"
        )
    return dataset


def _write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write what `numpy.savez` writes, in pieces: no mapped array is in memory as a whole."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                header = np.lib.format.header_data_from_array_1_0(array)
                np.lib.format.write_array_header_1_0(file, header)
                for piece in pieces(array):
                    file.write(np.ascontiguousarray(piece).data)
