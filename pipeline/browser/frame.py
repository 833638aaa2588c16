"""What both pages have in common: style, script, and how keys are written down."""

from functools import cache
from html import escape
from pathlib import Path

from nicegui import ui

HERE = Path(__file__).parent


@cache
def _head() -> str:
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("style.css", "panes.js"))
    return f"<style>{style}</style><script>{script}</script>"


def dress() -> None:
    """Style and script of the page being built."""
    ui.add_head_html(_head())
    ui.colors(primary="#2f5d8a")


def notices(texts: list[str]) -> str:
    """Notices as HTML, one below the other."""
    return "".join(f'<p class="notice">{escape(text)}</p>' for text in texts)


def keys_dialog(keys: list[tuple[str, str]]) -> ui.dialog:
    """A dialog that tells the keys: (key, what it does)."""
    with ui.dialog() as dialog, ui.card().classes("keys"):
        rows = "".join(
            f"<tr><td><kbd>{escape(key)}</kbd></td><td>{escape(what)}</td></tr>" for key, what in keys
        )
        ui.html(f"<h2>Keys</h2><table>{rows}</table>", sanitize=False)
    return dialog


def dialog_takes(dialog: ui.dialog, key: str) -> bool:
    """Whether a key is the dialog's: `?` opens it; while it is open, `?` and Escape close it and all others do nothing.

    That is for the server to say: in the browser a dialog is there until its fading out has ended, and would swallow keys.
    """
    if dialog.value:
        if key in ("?", "Escape"):
            dialog.close()
        return True
    if key == "?":
        dialog.open()
    return key == "?"
