#!/usr/bin/env python3
"""Carry out the Dockerfile's steps in a Debian root made by debootstrap, where no Docker engine is at hand.

    sudo apt-get install debootstrap
    sudo python3 deploy/dockerfile_in_chroot.py /var/tmp/image-root            # build
    sudo python3 deploy/dockerfile_in_chroot.py /var/tmp/image-root --run -e QAIO_MODEL=demo
    sudo python3 deploy/dockerfile_in_chroot.py /var/tmp/image-root --run --locked -e QAIO_MODEL=demo

It stands in for `FROM python:3.11-slim` with Debian 12 and its Python 3.11, then does what each instruction says: ARG,
ENV, WORKDIR, COPY, RUN, USER, CMD. It shows that the steps work; it is no container: only mounts are its own.
--locked runs CMD as deploy/compose.yaml does: a root that is read-only but for /models, /data and /keys, memory at
/tmp and /dev/shm, no capabilities, no new privileges. pip's own PIP_* variables are passed on; a folder they name can
be made visible with --share.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
# Passed into the root so that pip and apt find their packages the way they do outside.
HOST_FILES = ("/etc/resolv.conf", "/etc/pip.conf", "/etc/hosts")
# What setpriv takes from a process for good.
LOCKS = ("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all")
# What the Dockerfile's `docker run` lines name with -v.
VOLUMES = ("/models", "/data", "/keys")
METADATA = {"FROM", "EXPOSE", "HEALTHCHECK", "STOPSIGNAL", "LABEL"}


class Image:
    """A root folder and the state that instructions build up."""

    def __init__(self, root: Path, arguments: dict[str, str]) -> None:
        self.root = root
        self.environment = {"PATH": "/opt/python/bin:/usr/local/bin:/usr/sbin:/usr/bin:/bin"}
        self.environment |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        self.build_arguments = arguments
        self.workdir = "/"
        self.user = "0"
        self.command: list[str] = []

    def bootstrap(self) -> None:
        """The stand-in for the base image."""
        subprocess.run(
            [
                "debootstrap",
                "--variant=minbase",
                "--include=python3,python3-venv,ca-certificates",
                "bookworm",
                self.root,
            ],
            check=True,
        )
        for name in HOST_FILES:
            if Path(name).exists():
                shutil.copy(name, self.root / name.lstrip("/"))
        self.run("python3 -m venv /opt/python", user="0")

    def show(self, path: str) -> None:
        """Bind-mount a path of the host at the same place in the root."""
        there = self.root / path.lstrip("/")
        if Path(path).is_dir():
            there.mkdir(parents=True, exist_ok=True)
        else:
            there.touch()
        subprocess.run(["mount", "--bind", path, there], check=True)

    def lock(self) -> None:
        """Make the root read-only; what is mounted below it, as volumes are, stays as it is."""
        for path in VOLUMES:
            folder = self.root / path.lstrip("/")
            subprocess.run(["mount", "--bind", folder, folder], check=True)
        for path in ("/tmp", "/dev/shm"):
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", self.root / path.lstrip("/")], check=True
            )
        subprocess.run(["mount", "-o", "remount,bind,ro", self.root], check=True)

    def run(self, script: str, *, user: str | None = None, locked: bool = False, **extra: str) -> None:
        """RUN and CMD: a shell in the root, as the current user, with the environment so far."""
        user, _, group = (user or self.user).partition(":")
        home = self.environment.get("HF_HOME", "/root") if user != "0" else "/root"
        become = [
            "setpriv",
            f"--reuid={user}",
            f"--regid={group or user}",
            "--clear-groups",
            *(LOCKS if locked else ()),
        ]
        subprocess.run(
            ["chroot", self.root, *become, "/bin/sh", "-c", f"cd {self.workdir} && {script}"],
            env={**self.environment, **self.build_arguments, "HOME": home, **extra},
            check=True,
        )

    def copy(self, words: list[str]) -> None:
        """COPY: files, or the contents of folders, as .dockerignore lets them through; or, as they are, from another
        stage: all stages are one here."""
        *sources, target = words
        there = self.root / os.path.join(self.workdir, target).lstrip("/")
        of_stage = sources[0].startswith("--from=")
        for source in sources[of_stage:]:
            origin = self.root / source.lstrip("/") if of_stage else PROJECT / source
            if origin.is_dir():
                shutil.copytree(origin, there, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                there.mkdir(parents=True, exist_ok=True)
                shutil.copy(origin, there)
            if not of_stage and not any(fnmatch.fnmatch(source, kept) or source.startswith(kept) for kept in _kept()):
                raise SystemExit(f"COPY {source}: .dockerignore keeps it out of the build")

    def carry_out(self, word: str, rest: str) -> None:
        """One instruction of the Dockerfile."""
        if word == "ARG":
            name, _, default = rest.partition("=")
            self.build_arguments.setdefault(name.strip(), default.strip())
        elif word == "ENV":
            self.environment.update(pair.split("=", 1) for pair in shlex.split(rest))
        elif word == "WORKDIR":
            self.workdir = rest
            (self.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif word == "COPY":
            self.copy(shlex.split(rest))
        elif word == "RUN":
            self.run(rest)
        elif word == "USER":
            self.user = rest
        elif word == "CMD":
            self.command = json.loads(rest)
        elif word not in METADATA:
            raise SystemExit(f"{word}: this script does not know that instruction")


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """(instruction, arguments), comments dropped and continued lines joined."""
    lines = [line for line in dockerfile.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    text = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(words[0], words[1]) for line in text.splitlines() if len(words := line.split(maxsplit=1)) == 2]


def _kept() -> list[str]:
    lines = (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return [line[1:] for line in lines if line.startswith("!")]


def main() -> None:
    """Build the root, or run the command in one that was built."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--run", action="store_true", help="run CMD in a root built before")
    parser.add_argument("--locked", action="store_true", help="with --run: read-only root, no capabilities")
    parser.add_argument("--user", help="with --run: the user and group, as OpenShift picks them: 1000660000:0")
    parser.add_argument("--share", action="append", default=[], metavar="DIR", help="folder of the host to show inside")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("-e", dest="variables", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    if "IN_OWN_MOUNTS" not in os.environ:  # so that nothing stays mounted, however this ends
        os.execvpe("unshare", ["unshare", "--mount", sys.executable, *sys.argv], os.environ | {"IN_OWN_MOUNTS": "1"})
    image = Image(options.root, dict(pair.split("=", 1) for pair in options.build_arg))
    if not options.run:
        image.bootstrap()
    subprocess.run(["mount", "--bind", options.root, options.root], check=True)
    for folder in ["/proc", "/dev/shm", "/dev/urandom", *options.share]:
        image.show(folder)
    for word, rest in instructions(PROJECT / "Dockerfile"):
        print(f"--- {word} {rest}", file=sys.stderr, flush=True)
        if not options.run or word in {"ARG", "ENV", "USER", "CMD", "WORKDIR"}:
            image.carry_out(word, rest)
    if options.run:
        if options.locked:
            image.lock()
        variables = dict(pair.split("=", 1) for pair in options.variables)
        image.run("exec " + shlex.join(image.command), user=options.user, locked=options.locked, **variables)


if __name__ == "__main__":
    main()
