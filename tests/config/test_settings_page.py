"""docs/settings.md is made from the table of settings and says the same.

To make it anew: `.venv/bin/python tests/config/test_settings_page.py > docs/settings.md`.
"""

from pathlib import Path

from sandpost.config.table import SETTINGS, Setting

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
HEAD = """# Settings

From a TOML file (`/etc/sandpost.toml` or `--config FILE`), then the environment, then flags of `sandpost serve`; the
later wins. The names are the same in all three: `limits.deadline` is `deadline` in the table `[limits]`,
`SANDPOST_LIMITS_DEADLINE` and `--limits-deadline`. In the file `listen` is `address` in the table `[listen]` where that
has other settings: `[listen]`, `address = "0.0.0.0:8721"`, `tls_cert = "/etc/sandpost/cert.pem"`. Sizes are written as `128MiB`, durations as `30s`. Secrets have no flag:
environment, or a file of mode 0600 that a setting names. `sandpost config show` prints each value with its origin. SIGHUP to
`sandpost serve` takes up what is marked live.

Limits are defaults of tenants; `sandpost tenant set NAME` changes them for one.

| setting | default | live | what it does |
|---|---|---|---|
"""


def row(setting: Setting) -> str:
    """One line of the table."""
    default = "" if setting.default in ("", None, []) else f"`{setting.kind.show(setting.default)}`"
    name = f"`{setting.environment}`, no flag" if setting.secret else f"`{setting.name}`"
    return f"| {name} | {default} | {'yes' if setting.live else ''} | {setting.help} |"


def page() -> str:
    """The whole page."""
    return HEAD + "\n".join(map(row, SETTINGS)) + "\n"


def test_the_page_of_settings_is_true() -> None:
    assert PAGE.read_text() == page(), "make it anew as this test's docstring says"


if __name__ == "__main__":
    print(page(), end="")
