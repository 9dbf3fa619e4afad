"""Print the requirements of pyproject.toml and of the named extras (``--only``: just those)."""

import sys
import tomllib
from pathlib import Path


def main() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [name for name in sys.argv[1:] if name != "--only"]
    wanted = [] if "--only" in sys.argv else list(project["dependencies"])
    for name in extras:
        wanted += project["optional-dependencies"][name]
    print("\n".join(wanted))


if __name__ == "__main__":
    main()
