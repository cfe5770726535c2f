"""tools/setup_machine.sh: what it installs, what it says before, and when it only checks."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.dev.service import ROOT

SCRIPT = ROOT / "tools" / "setup_machine.sh"
# What the script itself runs, beside what it looks for.
TOOLS = ("bash", "env", "head", "sed")
PROGRAMS = (
    "java",
    "mvn",
    "make",
    "curl",
    "openssl",
    "node",
    "npm",
    "initdb",
    "psql",
    "docker-compose",
    "prometheus",
    "promtool",
    "systemd-analyze",
    "setpriv",
    "chromium",
    "chromedriver",
    "python3",
)
JAVA = "echo 'openjdk version \"17.0.12\"' >&2"


class Machine:
    """A machine whose programs are the files of one folder."""

    def __init__(self, folder: Path, *programs: str) -> None:
        self._bin, self._packages = folder / "bin", folder / "packages"
        self._calls = folder / "calls.txt"
        self._calls.touch()
        for place in (self._bin, self._packages):
            place.mkdir()
        for tool in TOOLS:
            (self._bin / tool).symlink_to(shutil.which(tool) or "")
        for program in PROGRAMS:
            body = JAVA if program == "java" else ""
            self.add(program, body, self._bin if program in programs else self._packages)
        self.add("id", "echo 0")

    def add(self, name: str, body: str = "", place: Path | None = None) -> None:
        """A program that notes how it is called."""
        path = (place or self._bin) / name
        path.write_text(f'#!{shutil.which("bash")}\necho {name} "$@" >> {self._calls}\n{body}\n')
        path.chmod(0o755)

    def add_apt(self, unknown: str = "") -> None:
        """An apt-get that installs all that is missing; apt-cache does not know one package."""
        self.add("apt-cache", f'[ "$2" != "{unknown}" ]')
        copy = f"{shutil.which('cp')} {self._packages}/* {self._bin}"
        self.add("apt-get", f'if [ "$1" = install ]; then {copy}; fi')

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run the script."""
        return subprocess.run(
            [str(SCRIPT), *arguments],
            env={"PATH": str(self._bin)} | env,
            capture_output=True,
            text=True,
            check=False,
        )

    def called(self, name: str) -> list[str]:
        """How a program was called."""
        return [line for line in self._calls.read_text().splitlines() if line.split()[0] == name]


def test_this_machine_has_all_programs() -> None:
    done = subprocess.run(
        [str(SCRIPT)],
        env=os.environ | {"SHARDLINE_NO_INSTALL": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout


def test_a_check_names_what_is_missing_and_installs_nothing(tmp_path: Path) -> None:
    machine = Machine(tmp_path, *(name for name in PROGRAMS if name not in ("mvn", "chromedriver")))
    machine.add_apt()
    done = machine.run(SHARDLINE_NO_INSTALL="1")
    assert done.returncode == 2
    assert "missing: mvn, chromedriver (on Debian: maven chromium-driver)" in done.stdout
    assert "SHARDLINE_NO_INSTALL=1" in done.stderr
    assert not machine.called("apt-get")


def test_root_installs_what_is_missing_and_says_so_first(tmp_path: Path) -> None:
    machine = Machine(tmp_path, *(name for name in PROGRAMS if name not in ("mvn", "npm")))
    machine.add_apt()
    done = machine.run()
    assert done.returncode == 0, done.stderr
    assert "missing: mvn, npm" in done.stdout
    assert "apt-get install maven npm" in done.stdout
    assert machine.called("apt-get") == [
        "apt-get update -qq",
        "apt-get install -y -qq --no-install-recommends maven npm",
    ]


def test_other_users_install_with_sudo(tmp_path: Path) -> None:
    machine = Machine(tmp_path, *(name for name in PROGRAMS if name != "mvn"))
    machine.add_apt()
    machine.add("id", "echo 1000")
    done = machine.run()
    assert done.returncode == 2
    assert "needs root" in done.stderr
    assert not machine.called("apt-get")
    machine.add("sudo", '"$@"')
    done = machine.run()
    assert done.returncode == 0, done.stderr
    assert "sudo may ask for your password" in done.stdout
    assert [call.split()[1] for call in machine.called("sudo")] == ["apt-get", "env"]


@pytest.mark.parametrize(
    ("missing", "unknown", "installed"),
    [
        ("java", "openjdk-17-jre-headless", "openjdk-21-jre-headless"),
        ("chromium", "chromium", "chromium-browser"),
        ("chromedriver", "chromium-driver", "chromium-chromedriver"),
    ],
)
def test_the_first_known_package_is_installed(
    tmp_path: Path, missing: str, unknown: str, installed: str
) -> None:
    machine = Machine(tmp_path, *(name for name in PROGRAMS if name != missing))
    machine.add_apt(unknown)
    assert machine.run().returncode == 0
    assert machine.called("apt-get")[-1].endswith(f" {installed}")


def test_a_java_that_is_too_old_counts_as_missing(tmp_path: Path) -> None:
    machine = Machine(tmp_path, *PROGRAMS)
    machine.add("java", JAVA.replace("17.0.12", "11.0.2"))
    done = machine.run(SHARDLINE_NO_INSTALL="1")
    assert "missing: java (17 or newer)" in done.stdout


def test_without_apt_the_programs_are_named(tmp_path: Path) -> None:
    done = Machine(tmp_path, *(name for name in PROGRAMS if name != "node")).run()
    assert done.returncode == 2
    assert "missing: node" in done.stdout
    assert "no apt-get" in done.stderr


def test_make_install_needs_python_only(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "python3")
    assert machine.run("python", SHARDLINE_NO_INSTALL="1").returncode == 0
    assert machine.run(SHARDLINE_NO_INSTALL="1").returncode == 2
