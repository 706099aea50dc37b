"""New configurations for NFs that serve.

The manager sends the configurations of one change. Each NF prepares its own in a thread, while
packets go on. Only when all NFs of all NF hosts have prepared theirs, the manager asks for the
change itself, which happens between two bursts. An exception in an author's hook declines the
change and is reported; the NF goes on with what it had.

Threads: the thread of the NF host, but for `_Preparation`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time

from onvm_sdk._hosting.stage import Stage, build_stage
from onvm_sdk._native.nf import MessageType
from onvm_sdk.errors import ConfigError, NativeError
from onvm_sdk.manifest import read_config
from onvm_sdk.nf import NetworkFunction

TYPE_CHECKING = False  # importing typing takes milliseconds; see onvm_sdk.runtime
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from onvm_sdk._native.nf import Host, Message
    from onvm_sdk.manifest import Manifest
    from onvm_sdk.nf import Context

__all__ = [
    "MESSAGES",
    "Reconfiguration",
    "can_reconfigure",
    "drop_later",
    "unpack_config",
    "use",
]

MESSAGES = (MessageType.CONFIG, MessageType.APPLY, MessageType.CANCEL)
CONFIG_BYTES_MAX = 256 << 20
_NICENESS = 10
_DROP_AFTER_S = 0.1


def can_reconfigure(nf: NetworkFunction) -> bool:
    """Return whether `nf` can take a new configuration while it serves."""
    return type(nf).reconfigure is not NetworkFunction.reconfigure


def use(
    stage: Stage, prepared: Any, on_error: Callable[[BaseException], None], *, compiled: bool = True
) -> Stage:
    """Let the NF of a stage use what it has prepared; return its stage from now on.

    Raises:
        ConfigError: the NF refuses, and goes on as before.
    """
    nf, state = stage.nf, stage.nf.state
    nf.reconfigure(prepared)
    if stage.hook == "native":
        native = nf.native()
        if (native.function, native.state) != (stage.function, stage.state):
            return Stage(nf, stage.hook, native.function, native.state, native)
        return stage
    if nf.state is state:
        return stage
    try:
        return build_stage(nf, on_error, compiled=compiled)
    except BaseException:
        nf.state = state
        raise


def drop_later(old: object) -> None:
    """Let a thread free the tables of what the caller forgets now: large ones take long."""
    import threading

    threading.Thread(target=_hold, args=(old,), daemon=True).start()


def _hold(old: object) -> None:
    _lower_priority()
    time.sleep(_DROP_AFTER_S)  # by then this is the last reference
    del old


def _lower_priority() -> None:
    import threading

    with contextlib.suppress(OSError):  # a sandbox may refuse it
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def unpack_config(content: bytes, folder: str) -> dict[str, Any]:
    """Read a configuration as the manager sends it, and the files that it names.

    The first line is JSON: the length of the configuration in TOML, then path and length of each
    file. Their contents follow. A file that this process cannot read with that content is written
    into `folder`, and the configuration names it there.
    """
    import tomllib

    head, _, rest = content.partition(b"\n")
    length, files = json.loads(head)
    config = tomllib.loads(rest[:length].decode())
    rest = rest[length:]
    for number, (path, n_bytes) in enumerate(files):
        written = _placed(path, rest[:n_bytes], os.path.join(folder, str(number)))
        rest = rest[n_bytes:]
        config = {key: _renamed(value, path, written) for key, value in config.items()}
    return config


def _renamed(value: Any, path: str, written: str) -> Any:
    if isinstance(value, list):
        return [written if one == path else one for one in value]
    return written if value == path else value


def _placed(path: str, content: bytes, other: str) -> str:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        if file.read() == content:
            return path
    os.makedirs(other, exist_ok=True)
    other = os.path.join(other, os.path.basename(path))
    with open(other, "wb") as file:
        file.write(content)
    return other


class _Preparation:
    """A configuration that a stage prepares, or has prepared.

    Threads: `run` has its own; the others look once `is_over`.
    """

    def __init__(self, change: str, nf: NetworkFunction, manifest: Manifest, content: bytes):
        self.change = change
        self.config: dict[str, Any] = {}
        self.prepared: Any = None
        self.error: BaseException | None = None
        self.is_over = False
        self.is_told = False
        self._nf = nf
        self._manifest = manifest
        self._content = content

    def run(self, on_end: Callable[[], None]) -> None:
        """Prepare it, at a lower priority than packets have."""
        import shutil
        import tempfile

        _lower_priority()
        folder = ""
        try:
            folder = tempfile.mkdtemp(prefix="onvm-config-")
            self.config = read_config(self._manifest, unpack_config(self._content, folder))
            self.prepared = self._nf.prepare(self.config)
        except Exception as error:  # the author's; it is reported, and nothing changes
            self.error = error
        finally:
            self._content = b""
            shutil.rmtree(folder, ignore_errors=True)
            self.is_over = True
            on_end()


class Reconfiguration:
    """Changes of configuration in an NF host.

    Args:
        host: the attachment, for answers.
        nfs, manifests, contexts: of the stages, in chain order.
        replace: lets a stage use a prepared configuration.
    """

    def __init__(
        self,
        host: Host,
        nfs: Sequence[NetworkFunction],
        manifests: Sequence[Manifest],
        contexts: Sequence[Context],
        replace: Callable[[int, Any], None],
    ) -> None:
        self._host = host
        self._nfs = nfs
        self._manifests = manifests
        self._contexts = contexts
        self._replace = replace
        self._pieces: dict[int, list[bytes]] = {}
        self._n_bytes = 0
        self._all: dict[int, _Preparation] = {}

    def take(self, message: Message) -> None:
        """Handle a message, one of `MESSAGES`."""
        try:
            if message.kind == MessageType.CONFIG and message.stage < len(self._nfs):
                self._receive(message)
            elif message.kind == MessageType.APPLY:
                self._apply(message.peer)
            elif message.kind == MessageType.CANCEL:
                self._forget()
        except NativeError:  # the manager is gone, and the change with it
            self._forget()

    def turn(self) -> None:
        """Tell the manager what has been prepared since."""
        for stage, one in list(self._all.items()):
            if one.is_over and not one.is_told:
                one.is_told = True
                try:
                    if one.error is None:
                        self._host.send(MessageType.PREPARED, stage, one.change)
                    else:
                        self._decline(stage, one.change, "prepare", one.error)
                except NativeError:
                    self._forget()
        self._host.give_way(any(not one.is_over for one in self._all.values()))

    def _forget(self) -> None:
        if self._all:
            drop_later(self._all)
        self._pieces = {}
        self._all = {}
        self._n_bytes = 0

    def _receive(self, message: Message) -> None:
        stage, change = message.stage, message.peer
        if not can_reconfigure(self._nfs[stage]):
            if not message.payload:
                self._host.send(MessageType.DECLINED, stage, change)
            return
        self._n_bytes += len(message.payload)
        if self._n_bytes > CONFIG_BYTES_MAX:
            self._forget()
            reason = ConfigError(f"expected at most {CONFIG_BYTES_MAX} bytes of configuration")
            self._decline(stage, change, "prepare", reason)
        elif message.payload:
            self._pieces.setdefault(stage, []).append(message.payload)
        else:
            content = b"".join(self._pieces.pop(stage, ()))
            self._n_bytes = 0
            self._begin(stage, change, content)

    def _begin(self, stage: int, change: str, content: bytes) -> None:
        import threading

        one = _Preparation(change, self._nfs[stage], self._manifests[stage], content)
        self._all[stage] = one
        self._host.give_way(True)
        threading.Thread(target=one.run, args=(self._host.interrupt,), daemon=True).start()

    def _apply(self, change: str) -> None:
        ready = {
            stage: one
            for stage, one in sorted(self._all.items())
            if one.change == change and one.is_over and one.error is None
        }
        self._forget()
        for stage, one in ready.items():
            try:
                self._replace(stage, one.prepared)
            except Exception as error:  # the author's; it is reported, and the manager undoes it
                self._decline(stage, change, "reconfigure", error)
                return
            self._contexts[stage].config = one.config
        self._host.send(MessageType.APPLIED, 0, change)

    def _decline(self, stage: int, change: str, hook: str, error: BaseException) -> None:
        if isinstance(error, ConfigError):
            value = error.value
            simple = value if isinstance(value, (bool, int, float, str, list)) else None
            reason = {"expected": error.expected, "field": error.field, "value": simple}
        else:
            name = type(error).__name__
            line = f"{self._manifests[stage].name}.{hook} raised {name}: {error}"
            print(f"onvm: {line}", file=sys.stderr, flush=True)
            reason = {"expected": f"expected one that it can use: {line}"}
        text = json.dumps(reason, default=str).encode()
        if len(text) > 4096:
            text = json.dumps({"expected": str(reason["expected"])[:1000]}).encode()
        self._host.send(MessageType.DECLINED, stage, change, text)
