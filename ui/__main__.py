"""`python -m ui`: the page on port 7860."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from ui.client import Api
from ui.settings import Settings, SettingsError

_MOST_VISITORS = 256  # with something going on


def main() -> int:
    """Serve until interrupted; 2 where a setting is wrong."""
    try:
        settings = Settings.load()
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    # A stop takes the way of Ctrl-C, so that nobody's files are left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Uploads and downloads lie here, for as long as the page runs at most. Gradio reads these when it is imported.
    with TemporaryDirectory(prefix="qwen-ui-") as files:
        # Gradio asks its own page whether it is there; a proxy for the world outside would not find it.
        loopback = ",".join(filter(None, [os.environ.get("no_proxy"), "localhost,127.0.0.1,::1"]))
        os.environ |= {"no_proxy": loopback, "NO_PROXY": loopback}
        os.environ |= {"GRADIO_TEMP_DIR": files, "GRADIO_ANALYTICS_ENABLED": "False"}
        _serve(settings, Path(files))
    return 0


def _serve(settings: Settings, files: Path) -> None:
    from ui import page, policy

    key = settings.api_key.get_secret_value() if settings.api_key else None
    blocks = page.build(Api(settings.service, key), settings)
    blocks.queue(max_size=_MOST_VISITORS)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    blocks.launch(
        server_name=host,
        max_threads=_MOST_VISITORS,  # a visitor who watches his file keeps one event going
        root_path=settings.root_path,
        server_port=settings.port,
        share=False,
        ssr_mode=False,
        quiet=True,
        prevent_thread_lock=True,
        footer_links=[],
        enable_monitoring=False,
        max_file_size=page.MAX_FILE_BYTES,
        theme=page.theme(),
        css_paths=page.STYLE,
        app_kwargs={"middleware": policy.middleware(settings.answers_to, files, settings.uploads_mb)},
    )
    print(f"The page is at http://{host}:{settings.port} and talks to {settings.service}", flush=True)
    blocks.block_thread()


if __name__ == "__main__":
    sys.exit(main())
