"""`python -m benchmarks.few_steps search` and `verify`."""

import argparse
import json
from pathlib import Path

from hybridstitch.measure.price import Prices
from hybridstitch.mini.scenes import heldout_prompts

from .page import markdown, plot
from .search import Search
from .studio import Studio, priced
from .verdict import verify

SEED, OTHERS = 100, 1000  # of the search's prompts and noise, and of the verdict's


def main() -> None:
    """Search, or verify what was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.few_steps")
    parser.add_argument("what", choices=("search", "verify"))
    parser.add_argument("--minutes", type=float, default=20, help="how long to search")
    parser.add_argument("--screened", type=int, default=3, help="prompts of the search each candidate is drawn on")
    parser.add_argument("--searched", type=int, default=8, help="prompts of the search the best are drawn on")
    parser.add_argument("--prompts", type=int, default=64, help="other prompts for the verdict")
    parser.add_argument("--seed", type=int, default=0, help="of the search's changes")
    parser.add_argument("--out", type=Path, default=Path("docs/results/few_steps"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    studio = Studio(heldout_prompts(args.searched, seed=SEED), SEED)
    file = args.out / "prices.json"
    if not file.is_file():
        file.write_text(json.dumps(priced(studio.pipe, studio.prompts[0]).to_json(), indent=1), encoding="utf-8")
    prices = Prices.from_json(json.loads(file.read_text(encoding="utf-8")))
    search = Search(studio, prices, args.out, args.screened, args.seed)
    if args.what == "search":
        search.run(args.minutes)
        return
    report = verify(search, heldout_prompts(args.prompts, seed=OTHERS), OTHERS, args.out)
    (args.out / "table.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    (args.out / "table.md").write_text(markdown(report), encoding="utf-8")
    plot(report, args.out / "front.png")
    print(markdown(report))


if __name__ == "__main__":
    main()
