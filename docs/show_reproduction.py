"""`python docs/show_reproduction.py FOLDER`: put a reproduction's report and first table into docs/reproduction.md."""

import re
import sys
from pathlib import Path

PAGE = Path(__file__).parent / "reproduction.md"
PLACE = re.compile(r"(<!-- results:.*?-->\n).*?(<!-- end of results -->)", re.DOTALL)
FIGURES = ("fig6", "fig4", "fig8")


def shown(folder: Path) -> str:
    """Report, first table and figures of a result folder, as a part of the page."""
    report = (folder / "report.md").read_text(encoding="utf-8").partition("\n")[2]
    table = (folder / "tables" / "table1.md").read_text(encoding="utf-8").partition("\n\n")[0]
    where = folder.resolve().relative_to(PAGE.parent.resolve()).as_posix()
    pictures = [
        f"![{name}]({where}/figures/{name}.png)" for name in FIGURES if (folder / f"figures/{name}.png").exists()
    ]
    files = f"All tables, figures and raw numbers: [{where}]({where})."
    deeper = re.sub(r"^## ", "### ", report, flags=re.MULTILINE)
    return "\n\n".join([files, "### Table 1", table, *pictures, deeper.strip()]) + "\n"


def main() -> None:
    """Fill the page in."""
    page = PAGE.read_text(encoding="utf-8")
    text = shown(Path(sys.argv[1]))
    PAGE.write_text(PLACE.sub(lambda found: found[1] + text + found[2], page), encoding="utf-8")


if __name__ == "__main__":
    main()
