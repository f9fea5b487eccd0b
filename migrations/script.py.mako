<%!
import re
from alembic.script import ScriptDirectory

ALEMBICS_OWN = re.compile(r"^ *# ###.*\n?|\n *# ###.*$", re.MULTILINE)
%>\
<% before = ScriptDirectory.from_config(config).get_revision(down_revision) %>\
"""${message}

Revision ID: ${up_revision}
Revises: ${down_revision | comma,n}
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op${f"\n{imports}" if imports else ""}

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None
OLDEST_CODE = ${repr(before.module.OLDEST_CODE)}  # the value before: right for what expands only


def upgrade() -> None:
    ${ALEMBICS_OWN.sub("", upgrades).strip() if upgrades else "pass"}


def downgrade() -> None:
    ${ALEMBICS_OWN.sub("", downgrades).strip() if downgrades else "pass"}
