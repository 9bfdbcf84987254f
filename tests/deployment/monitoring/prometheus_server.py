"""A real Prometheus with the shipped rules, scraping the workers it is given."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

from tests.deployment.monitoring.shipped import rule_groups
from verifier.demo.stack.ports import free_port

READY_WITHIN_S = 30.0


class Prometheus:
    """Scrapes and evaluates each second; a context that ends the process it started."""

    def __init__(self, folder: Path, targets: Sequence[str]) -> None:
        self._folder = folder
        self.port = free_port()
        groups = [{**group, "interval": "1s"} for group in rule_groups()]
        (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}), encoding="utf-8")
        scrape = {
            "job_name": "shadow-verifier-workers",
            "static_configs": [{"targets": list(targets), "labels": {"namespace": "market-intel-brain"}}],
        }
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [scrape],
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")

    def __enter__(self) -> Self:
        log = (self._folder / "prometheus.log").open("wb")
        self._process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={self._folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={self._folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            stdout=log,
            stderr=log,
        )
        log.close()
        try:
            self._wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait_ready(self) -> None:
        give_up_at = time.monotonic() + READY_WITHIN_S
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{self.port}/-/ready").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            log = (self._folder / "prometheus.log").read_text(errors="replace")[-2000:]
            assert self._process.poll() is None, log
            assert time.monotonic() < give_up_at, log
            time.sleep(0.1)

    def api(self, path: str, **parameters: str) -> Any:
        answer = httpx.get(f"http://127.0.0.1:{self.port}/api/v1/{path}", params=parameters, timeout=10.0)
        body = answer.json()
        assert body["status"] == "success", body
        return body["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an expression now."""
        result: list[dict[str, Any]] = self.api("query", query=expression)["result"]
        return result

    def names(self) -> set[str]:
        return set(self.api("label/__name__/values"))
