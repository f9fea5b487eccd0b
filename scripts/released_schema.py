"""Print the tables and columns that this version's code uses, for `migrations/released.json`: run it at a release.

Until the next release a migration must leave all of it in place: see "Expand, then contract" in docs/operator.md.
"""

from __future__ import annotations

import json

from service.store import fitness
from service.store.schema import metadata


def main() -> None:
    tables = {
        table.name: {column.name: {"nullable": bool(column.nullable)} for column in table.columns}
        for table in metadata.sorted_tables
    }
    print(json.dumps({"revision": fitness.revisions()[-1], "tables": tables}, indent=1, sort_keys=True))


if __name__ == "__main__":
    main()
