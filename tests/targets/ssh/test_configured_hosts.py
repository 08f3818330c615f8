"""The hosts of a user's ssh configuration."""

from __future__ import annotations

from pathlib import Path

from targets.ssh.configured_hosts import configured_hosts


def test_hosts_are_names_and_no_patterns(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("host kitchen x* !cellar\nHOST=pi4\n# Host old\nHostName 10.0.0.1\nInclude more/* gone config\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a").write_text('Host "attic" kitchen\n')
    assert configured_hosts(config) == ["kitchen", "pi4", "attic"]


def test_no_configuration_is_no_error(tmp_path: Path) -> None:
    assert configured_hosts(tmp_path / "config") == []
    (tmp_path / "folder").mkdir()
    assert configured_hosts(tmp_path / "folder") == []
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    assert configured_hosts(tmp_path / "binary") == []
