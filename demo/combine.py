"""Adds what several models have learned since the one they all began at (task arithmetic; Ilharco et al. 2023).

    python -m demo.combine --begin demo/checkpoint --out both --learned labels 1.0 --learned verdicts 1.0

What was learned apart disturbs the rest less than what is learned one after the other.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file

WEIGHTS = "model.safetensors"


def combine(begin: Path, learned: list[tuple[Path, float]], out: Path) -> None:
    """Write the model `begin` plus a share of how far each of `learned` is from it to the folder `out`.

    Raises:
        ValueError: a model of other weights or sizes.
    """
    base = load_file(begin / WEIGHTS)
    total = {name: weight.float().clone() for name, weight in base.items()}
    for folder, share in learned:
        other = load_file(folder / WEIGHTS)
        if {n: w.shape for n, w in other.items()} != {n: w.shape for n, w in base.items()}:
            raise ValueError(f"{folder} has other weights than {begin}; give models that began there")
        for name, weight in other.items():
            total[name] += share * (weight.float() - base[name].float())
    with safe_open(begin / WEIGHTS, "pt") as file:
        about = file.metadata()
    out.mkdir(parents=True, exist_ok=True)
    for path in begin.iterdir():
        if path.name != WEIGHTS:
            shutil.copyfile(path, out / path.name)
    save_file({name: weight.to(base[name].dtype) for name, weight in total.items()}, out / WEIGHTS, metadata=about)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--begin", type=Path, default=Path("demo/checkpoint"), metavar="MODEL")
    parser.add_argument("--learned", nargs=2, action="append", required=True, metavar=("MODEL", "SHARE"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    combine(options.begin, [(Path(folder), float(share)) for folder, share in options.learned], options.out)


if __name__ == "__main__":
    main()
