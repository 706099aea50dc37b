"""Clients and servers of real traffic: many connections that talk for long, and downloads.

``talk.py serve ECHO_PORT BLOB_PORT`` answers on all addresses. ``talk.py talk ADDRESS ECHO_PORT
BLOB_PORT`` is told by lines on its standard input what to do, and answers each with a line of JSON:

    open N        N connections more that stay; each says a number, checks the echo, and so on
    close         all of these end at once
    load N        have N downloads going on, one after the other each
    forget        what has failed so far
    stat          what has come of it
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import sys
from typing import Any

TALK = (sys.executable, "-P", __file__)
"""Starts this program."""
PERIOD_S = 0.25
ANSWER_S = 40.0
"""TCP may lose the same segment more than once while a host dies; its timer doubles each time."""
BLOB_BYTES = 400_000
BLOB_PAUSE_S = 0.1


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
    writer.close()


async def blob(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    content = random.randbytes(BLOB_BYTES)
    with contextlib.suppress(ConnectionError):
        writer.write(hashlib.sha256(content).digest() + content)
        await writer.drain()
        writer.close()
        await writer.wait_closed()


async def serve(echo_port: int, blob_port: int) -> None:
    await asyncio.start_server(echo, "0.0.0.0", echo_port, backlog=500)
    await asyncio.start_server(blob, "0.0.0.0", blob_port, backlog=500)
    print("ready", flush=True)
    await asyncio.Event().wait()


class Talker:
    def __init__(self, address: str, echo_port: int, blob_port: int) -> None:
        self.address = address
        self.echo_port = echo_port
        self.blob_port = blob_port
        self.ports: dict[int, int] = {}
        """Of connections that are open, by number."""
        self.failed: dict[int, tuple[int, str]] = {}
        """Of connections, by number: their port, and why."""
        self.messages: dict[int, int] = {}
        self.downloads = 0
        self.bad_downloads: list[str] = []
        self.wanted_loads = 0
        self.active_loads = 0
        self.tasks: set[asyncio.Task[None]] = set()
        self.talks: list[asyncio.Task[None]] = []
        self.begun = 0

    def spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def connection(self, number: int) -> None:
        port = 0
        writer = None
        try:
            # Not wait_for: that of Python 3.11 may swallow that the task is cancelled.
            async with asyncio.timeout(ANSWER_S):
                reader, writer = await asyncio.open_connection(self.address, self.echo_port)
            port = writer.get_extra_info("sockname")[1]
            self.ports[number] = port
            await asyncio.sleep(random.random() * PERIOD_S)
            for count in range(1 << 30):
                said = f"{number} {count}\n".encode()
                writer.write(said)
                async with asyncio.timeout(ANSWER_S):
                    heard = await reader.readline()
                if heard != said:
                    raise ConnectionError(f"said {said!r}, heard {heard!r}")
                self.messages[number] = count + 1
                await asyncio.sleep(PERIOD_S)
        except (TimeoutError, OSError) as error:
            self.ports.pop(number, None)
            self.failed[number] = (port, f"{type(error).__name__}: {error}")
        finally:
            if writer is not None:
                writer.transport.abort()

    async def downloads_one_by_one(self) -> None:
        while self.active_loads <= self.wanted_loads:
            try:
                async with asyncio.timeout(ANSWER_S):
                    await self.download()
                self.downloads += 1
            except (TimeoutError, OSError, asyncio.IncompleteReadError) as error:
                self.bad_downloads.append(f"{type(error).__name__}: {error}")
            await asyncio.sleep(BLOB_PAUSE_S)
        self.active_loads -= 1

    async def download(self) -> None:
        reader, writer = await asyncio.open_connection(self.address, self.blob_port)
        try:
            wanted = await reader.readexactly(32)
            content = await reader.readexactly(BLOB_BYTES)
            if hashlib.sha256(content).digest() != wanted or await reader.read(1):
                raise ConnectionError("another content")
        finally:
            writer.close()

    def do(self, line: str) -> None:
        command, _, rest = line.partition(" ")
        if command == "open":
            for _ in range(int(rest)):
                self.talks.append(self.spawn(self.connection(self.begun)))
                self.begun += 1
        elif command == "close":
            for task in self.talks:
                task.cancel()
            self.talks, self.ports, self.failed = [], {}, {}
        elif command == "forget":
            self.failed, self.bad_downloads = {}, []
        elif command == "load":
            self.wanted_loads = int(rest)
            while self.active_loads < self.wanted_loads:
                self.active_loads += 1
                self.spawn(self.downloads_one_by_one())
        elif command != "stat":
            raise ValueError(line)

    async def run(self) -> None:
        commands = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
        while line := await commands.readline():
            self.do(line.decode().strip())
            print(
                json.dumps(
                    {
                        "ports": self.ports,
                        "failed": self.failed,
                        "messages": self.messages,
                        "downloads": self.downloads,
                        "bad_downloads": self.bad_downloads,
                        "loads": self.active_loads,
                    }
                ),
                flush=True,
            )


def main() -> None:
    role, *arguments = sys.argv[1:]
    if role == "serve":
        asyncio.run(serve(int(arguments[0]), int(arguments[1])))
    else:

        async def talk() -> None:
            await Talker(arguments[0], int(arguments[1]), int(arguments[2])).run()

        asyncio.run(talk())


if __name__ == "__main__":
    main()
