"""Commands of `onvm`: processes that are forked from one that has imported the command line.

Starting Python and importing costs ten times the CPU of what a command does, and the tests run some
thousand commands. What is forked runs the same entry point, with the arguments, the environment,
the folder and the streams that it would have had.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

ONVM = [sys.executable, "-P", "-m", "onvm_core.cli"]
_MESSAGE_BYTES = 1 << 17
_FDS = 3


def run_onvm(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout_s: float = 60,
) -> subprocess.CompletedProcess[str]:
    """Run a command whose standard input is empty; in this environment and folder by default.

    Raises:
        subprocess.TimeoutExpired: it took longer, and was killed.
    """
    command = [*ONVM, *arguments]
    env = dict(os.environ if env is None else env)
    cwd = cwd or Path.cwd()
    if os.environ.get("PYTHONPATH"):  # another build is tested: what a fork has imported is not it
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env=env,
            timeout=timeout_s,
            cwd=cwd,
        )
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        said, says = socket.socketpair()
        request = json.dumps({"arguments": arguments, "env": env, "cwd": str(cwd)}).encode()
        with said:
            with says:
                socket.send_fds(_server(), [request], [out.fileno(), err.fileno(), says.fileno()])
            status = _wait(said, command, timeout_s)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode())
    return subprocess.CompletedProcess(command, status, *texts)


def _wait(said: socket.socket, command: list[str], timeout_s: float) -> int:
    pid = int(said.recv(32))
    said.settimeout(timeout_s)
    try:
        return int(said.recv(32))
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)
        raise subprocess.TimeoutExpired(command, timeout_s) from None


@functools.cache
def _server() -> socket.socket:
    """The process that forks. It ends with this one, which holds the other end of its socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        subprocess.Popen(
            [sys.executable, "-P", __file__, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
        )
    return ours


def _serve(requests: socket.socket) -> None:
    """Fork for each request; only what is forked returns, as the command that it is to be."""
    path = list(sys.path)
    builtins = importlib.import_module("onvm_core.plugins.builtins")
    importlib.import_module("onvm_core.cli.app")
    modules = {one.name: one.target.partition(":")[0] for one in builtins.onvm_cli_commands()}
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nothing to wait for
    while True:
        message, fds, _, _ = socket.recv_fds(requests, _MESSAGE_BYTES, _FDS)
        if not message:
            os._exit(0)
        request = json.loads(message)
        if (name := next(iter(request["arguments"]), None)) in modules:
            importlib.import_module(modules[name])  # once
        if os.fork() == 0:
            requests.close()
            if _fork_command(*fds):
                _become(request, path)
                return
        for fd in fds:
            os.close(fd)


def _fork_command(out: int, err: int, says: int) -> bool:
    """Fork the command: True there. The caller waits for it, tells its status and ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os.dup2(out, 1)
        os.dup2(err, 2)
        for fd in (out, err, says):
            os.close(fd)
        return True
    with contextlib.suppress(OSError):  # the one that asked has ended
        os.write(says, f"{pid:32}".encode())
        _, status = os.waitpid(pid, 0)
        os.write(says, f"{os.waitstatus_to_exitcode(status):32}".encode())
    os._exit(0)


def _become(request: dict[str, object], path: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(str(request["cwd"]))
    os.environ.clear()
    os.environ.update(request["env"])  # type: ignore[call-overload]
    time.tzset()
    more = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:] = [*more, *path]
    importlib.invalidate_caches()
    entry = importlib.import_module("onvm_core.cli.entry")
    sys.argv = [entry.__file__.replace("entry", "__main__"), *request["arguments"]]  # type: ignore[misc]


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
    from onvm_core.cli.entry import main

    main()
