"""A bus for one test: a directory with a global config, its own addresses, and what runs there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import zmq

from tests.support import programs
from tests.support.ports import free_address
from tests.support.programs import RELAY, ROOT, Program, bare_environment
from tests.support.waiting import patient, wait_for

from .processes import HIDDEN, Hub, Tail

UPSTREAM_SCRIPTS = Path(__file__).resolve().parent / "upstream"


class Bus:
    """Use it in a `with` statement: at the end everything that runs on it is ended.

    `keys` are laid over the config that both upstream's programs and ours read.
    """

    def __init__(self, directory: Path, peer_venv: Path, **keys: Any) -> None:
        self.directory = directory
        self.inbound = free_address()
        self.outbound = free_address()
        self._bin = peer_venv / "bin"
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.processes: dict[str, Program] = {}
        self.config = {
            "endpoints": {"relay_outbound": [self.outbound]},
            "relay_inbound": self.inbound,
            "environment": "dev",
            "zmq_enabled": True,
            "sign_messages": False,
            "validate_signatures": False,
            # Half a second is upstream's default, and too little on a busy machine.
            "post_init_sleep": 2.0,
            # Our relay waits so long for listeners to come back when it starts, and more.
            "zmq_reconnect_ivl_max": 100,
            "peer.recorder.enabled": True,
            **keys,
        }
        # The name and place where upstream looks for it, from its working directory.
        self.config_directory = directory / "fedmsg.d"
        self.config_directory.mkdir(parents=True)
        self._write_config(self.config_directory / "test.py", self.config)

    def __enter__(self) -> Bus:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in reversed(list(self.processes.values())):
            process.stop()
        self._context.destroy(linger=0)
        # pytest shows this for a test that failed.
        for process in self.processes.values():
            for stream, text in ("output", process.output), ("errors", process.errors):
                if text:
                    print(f"--- {process.name}, {stream}, its end:\n{text[-3000:]}")

    def environment(self, **variables: str) -> dict[str, str]:
        return bare_environment(self.directory, **variables)

    def config_file(self, name: str, **keys: Any) -> Path:
        """Another config: this bus's with other values for some keys."""
        path = self.directory / f"{name}.py"
        self._write_config(path, {**self.config, **keys})
        return path

    # Programs that go on running.

    def relay(self, config: Path | None = None, **variables: str) -> Program:
        """Our relay, once it takes messages."""
        command = [sys.executable, str(RELAY), "--config-filename", str(config or self._config())]
        relay = self._start(Program, "relay", command, self._our_environment(**variables))
        relay.wait_for_line("INFO] ready")
        return relay

    def upstream_relay(self) -> Program:
        """Upstream's relay, once it takes messages and listeners hear them."""
        relay = self._start(
            Program, "upstream-relay", [str(self._bin / "fedmsg-relay")], self.environment()
        )
        with self.publisher() as publisher, self.listener() as listener:
            publisher.open_path_to(listener)
        return relay

    def tail(self, *options: str, name: str = "tail", config: Path | None = None) -> Tail:
        command = [*self._our_command("tail", config), *options]
        return self._start(Tail, name, command, self._our_environment())

    def start_logger(self, *options: str, config: Path | None = None) -> Program:
        """Our fedmsg-logger, without waiting for its end."""
        command = [*self._our_command("logger", config), *options]
        return self._start(Program, "logger", command, self._our_environment())

    def upstream_tail(self, *options: str, name: str = "upstream-tail") -> Tail:
        command = [str(self._bin / "fedmsg-tail"), *options]
        return self._start(Tail, name, command, self.environment())

    def hub(self, name: str = "upstream-hub", consumers: str = "recorder:Recorder") -> Hub:
        command = [str(self._bin / "fedmsg-hub"), "--with-consumers", consumers]
        environment = self.environment(PYTHONPATH=str(UPSTREAM_SCRIPTS))
        return self._start(Hub, name, command, environment)

    # Programs that come and go.

    def logger(
        self, *options: str, stdin: str | bytes = b"", config: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = [*self._our_command("logger", config), *options]
        return self._run(command, stdin, self._our_environment())

    def tool(self, name: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Run `fedmsg-NAME` of ours to its end."""
        return self._run([*self._our_command(name, None), *options], b"", self._our_environment())

    def upstream_logger(
        self, *options: str, stdin: str | bytes = b"", config: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        given = ["--config-filename", str(config)] if config else []
        command = [str(self._bin / "fedmsg-logger"), *given, *options]
        return self._run(command, stdin, self.environment())

    def script(self, source: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python that imports fedmsg_relay."""
        command = [sys.executable, "-c", source, *arguments]
        return self._run(command, b"", self._our_environment())

    def upstream_script(
        self, source: str | Path, *arguments: str, stdin: str | bytes = b""
    ) -> subprocess.CompletedProcess[str]:
        """Run Python that imports fedmsg: its text, or the path of one of upstream/*.py."""
        given = [str(source)] if isinstance(source, Path) else ["-c", source]
        command = [str(self._bin / "python"), *given, *arguments]
        return self._run(command, stdin, self.environment())

    # Sockets of the test itself.

    def listener(self, topic: bytes = b"") -> Listener:
        return Listener(self._context, self.outbound, topic)

    def publisher(self) -> Publisher:
        return Publisher(self._context, self.inbound)

    def socket(self, kind: int) -> zmq.Socket[bytes]:
        made = self._context.socket(kind)
        made.linger = 0
        return made

    def wait_for_listeners(self, relay: Program, count: int) -> None:
        """Wait until our relay says that so many listeners have subscribed."""

        def latest() -> bool:
            counts = re.findall(r"listener \S+ \w+, (\d+) now", relay.errors)
            return bool(counts) and int(counts[-1]) == count

        wait_for(latest, what=f"the relay has {count} listeners")

    def _start(
        self, kind: type[Any], name: str, command: list[str], environment: dict[str, str]
    ) -> Any:
        assert name not in self.processes
        process = kind(self.directory, command, environment, name=name, apart=True)
        self.processes[name] = process
        return process

    def _run(
        self, command: list[str], stdin: str | bytes, environment: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        done = programs.run(
            command,
            cwd=self.directory,
            env=environment,
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            text=False,
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )

    def _our_command(self, module: str, config: Path | None) -> list[str]:
        return programs.module(module, "--config-filename", str(config or self._config()))

    def _our_environment(self, **variables: str) -> dict[str, str]:
        return self.environment(PYTHONPATH=str(ROOT / "files"), **variables)

    def _config(self) -> str:
        return str(self.config_directory)

    @staticmethod
    def _write_config(path: Path, config: dict[str, Any]) -> None:
        path.write_text(f"config = {config!r}\n")


class Listener:
    """A plain SUB socket: it sees the frames themselves."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str, topic: bytes) -> None:
        self._socket = context.socket(zmq.SUB)
        self._socket.rcvhwm = 0
        self._socket.subscribe(topic)
        self._socket.connect(address)

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close(linger=0)

    def receive(self, seconds: float = 20) -> list[bytes]:
        """The frames of the next message."""
        while True:
            limit = patient(seconds)
            assert self._socket.poll(int(limit * 1000)), f"nothing came for {limit:g} seconds"
            frames = self._socket.recv_multipart()
            if frames[0] != HIDDEN.encode():
                return frames

    def receive_at_most(self, count: int, seconds: float = 10) -> list[list[bytes]]:
        """So many messages, or fewer if there comes none for a while."""
        messages: list[list[bytes]] = []
        while len(messages) < count and self.hears_anything(seconds):
            messages.append(self.receive())
        return messages

    def receive_until(self, topic: bytes) -> list[list[bytes]]:
        """All messages before the one with this topic."""
        messages = []
        while (frames := self.receive())[0] != topic:
            messages.append(frames)
        return messages

    def hears_anything(self, seconds: float) -> bool:
        return bool(self._socket.poll(int(seconds * 1000)))


class Publisher:
    """A plain XPUB socket that is connected to a relay's inbound address and knows it."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str) -> None:
        self._socket = context.socket(zmq.XPUB)
        self._socket.sndhwm = 0
        self._socket.connect(address)
        assert self._socket.poll(int(patient(20) * 1000)), f"no relay has subscribed at {address}"
        assert self._socket.recv() == b"\x01"

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close(linger=5000)

    def send(self, *frames: bytes) -> None:
        self._socket.send_multipart(frames)

    def open_path_to(self, listener: Listener) -> None:
        """Return once what is sent here is heard there, for a relay that does not say so."""

        def heard() -> bool:
            self.send(HIDDEN.encode(), b'{"topic": "%s"}' % HIDDEN.encode())
            return listener.hears_anything(0.05)

        wait_for(heard, what="a message comes through the relay")
