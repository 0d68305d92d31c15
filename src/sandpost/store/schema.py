"""Tables of the SQLite store and how they came about: one tuple of statements a version, never edited once shipped.

A later version only adds, since readers of the release before meet it during a restart.
"""

APPLICATION_ID = 0x53504F53
"""`SPOS` in the file's header: how we know a file as ours."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        # One row. `rev` grows with each change that readers must see; `floor` is the oldest rev from which the
        # tombstones are complete; `generation` tells a file that was brought back from a backup from its successor.
        """CREATE TABLE state (
            one INTEGER PRIMARY KEY CHECK (one = 1),
            generation TEXT NOT NULL,
            rev INTEGER NOT NULL,
            floor INTEGER NOT NULL
        ) STRICT""",
        "INSERT INTO state VALUES (1, lower(hex(randomblob(16))), 1, 1)",
        """CREATE TABLE tenants (
            name TEXT PRIMARY KEY,
            state TEXT NOT NULL CHECK (state IN ('active', 'suspended')),
            isolation TEXT NOT NULL,
            limits TEXT NOT NULL CHECK (json_type(limits) = 'object'),
            created_at REAL NOT NULL,
            rev INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX tenants_rev ON tenants (rev)",
        """CREATE TABLE keys (
            id TEXT PRIMARY KEY,
            digest BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
            tenant TEXT REFERENCES tenants (name) ON DELETE CASCADE,
            label TEXT NOT NULL,
            created_at REAL NOT NULL,
            rev INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX keys_rev ON keys (rev)",
        "CREATE INDEX keys_tenant ON keys (tenant)",
        """CREATE TABLE tombstones (
            kind TEXT NOT NULL CHECK (kind IN ('tenant', 'key')),
            name TEXT NOT NULL,
            rev INTEGER NOT NULL,
            PRIMARY KEY (kind, name)
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX tombstones_rev ON tombstones (rev)",
        """CREATE TABLE usage (
            tenant TEXT NOT NULL,
            hour INTEGER NOT NULL,
            calls INTEGER NOT NULL,
            cpu_seconds REAL NOT NULL,
            memory_seconds REAL NOT NULL,
            bytes_in INTEGER NOT NULL,
            bytes_out INTEGER NOT NULL,
            PRIMARY KEY (tenant, hour)
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX usage_hour ON usage (hour)",
        """CREATE TABLE usage_ends (
            tenant TEXT NOT NULL,
            hour INTEGER NOT NULL,
            word TEXT NOT NULL,
            ends INTEGER NOT NULL,
            PRIMARY KEY (tenant, hour, word)
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX usage_ends_hour ON usage_ends (hour)",
        "CREATE TABLE usage_batches (batch TEXT PRIMARY KEY, taken_at REAL NOT NULL) STRICT, WITHOUT ROWID",
        "CREATE INDEX usage_batches_taken_at ON usage_batches (taken_at)",
    ),
    (
        # The policy as it is written (`sandpost.model.egress`).
        "ALTER TABLE tenants ADD COLUMN egress TEXT NOT NULL DEFAULT 'public'",
    ),
    # Which OCI runtime makes the tenant's sandboxes; null: the host's. No CHECK: there may be more of them one day.
    ("ALTER TABLE tenants ADD COLUMN engine TEXT",),
    (
        # Modules of npm and PyPI that were asked for; what is on the disk decides (`sandpost.modules.shelf`).
        """CREATE TABLE modules (
            spec TEXT PRIMARY KEY,
            state TEXT NOT NULL CHECK (state IN ('queued', 'available', 'failed')),
            reason TEXT NOT NULL,
            scripts INTEGER NOT NULL CHECK (scripts IN (0, 1)),
            asked_at REAL NOT NULL,
            done_at REAL,
            size INTEGER NOT NULL,
            files INTEGER NOT NULL,
            digest TEXT NOT NULL,
            integrity TEXT NOT NULL CHECK (json_type(integrity) = 'object')
        ) STRICT, WITHOUT ROWID""",
    ),
)
VERSION = len(MIGRATIONS)
