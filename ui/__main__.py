"""`python -m ui`: the page on port 7860."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from ui.client import Api
from ui.settings import PREFIX, Settings, SettingsError

_MOST_VISITORS = 256  # with something going on


def main() -> int:
    """Serve until interrupted; 2 where a setting is wrong or somebody else listens there."""
    try:
        settings = Settings.load()
        check_address(settings.host, settings.port)
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


def check_address(host: str, port: int) -> None:
    """Raises SettingsError if the page could not listen there: Gradio would name a setting of its own."""
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise SettingsError(_told(host, port, error)) from None
    problems = [problem for family, *_, address in places if (problem := _problem(family, address))]
    taken = [problem for problem in problems if problem.errno in (errno.EADDRINUSE, errno.EACCES)]
    # A name may have an address of a kind that this machine has not: one that can be listened on is enough.
    if taken or len(problems) == len(places):
        raise SettingsError(_told(host, port, (taken or problems)[0]))


def _problem(family: int, address: tuple[object, ...]) -> OSError | None:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Gradio does
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        return error
    return None


def _told(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{PREFIX}PORT={port}: another program listens on {host} port {port}; stop it, or set another"
    if error.errno == errno.EACCES:
        return f"{PREFIX}PORT={port}: only root may listen there; set {PREFIX}PORT to 1024 or more"
    return f"{PREFIX}HOST={host}: nobody can listen there ({error.strerror}); set it to an address of this machine"


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
