"""The batch modes of the vendor on loopback: OpenAI's files and batches, Gemini's inline jobs."""

import dataclasses
import json
import re
from typing import Any

from fake_vendor import FakeVendor, Response, prompt_of


@dataclasses.dataclass
class Job:
    id: str
    name: str
    requests: dict[str, dict[str, Any]]
    looks: int = 0
    results: dict[str, dict[str, Any]] | None = None


class FakeBatches:
    """Adds the batch modes to a vendor.

    Attributes:
      looks: how often a job has to be looked at before it has ended.
      fate: prompt -> what becomes of its request: "error" (refused, not billed), "expired" (the
        job ended before it, not billed), "missing" (billed, and nothing is said of it), "garbled"
        (billed, and what is said of it is no answer).
      expired_as: how a job ends of which a request expired: EXPIRED or CANCELLED.
      nameless: Gemini leaves the keys out of its rows.
      refuse: why jobs are refused as a whole; "" takes them.
      lose: calls whose answer is lost after they did what they were to do, by the end of their
        path.
    """

    def __init__(self, vendor: FakeVendor):
        self.vendor, self.looks, self.refuse = vendor, 2, ""
        self.expired_as, self.nameless = "EXPIRED", False
        self.fate: dict[str, str] = {}
        self.lose: list[str] = []
        self.files: dict[str, bytes] = {}
        self.jobs: dict[str, Job] = {}
        vendor.more.append(self.respond)

    def respond(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> Response | None:
        if "authorization" in headers:
            value = self._openai(method, path, headers, body)
        else:
            value = self._gemini(method, path, body)
        if value is None:
            return None
        if any(path.partition("?")[0].endswith(end) for end in self.lose):
            self.lose.pop()
            return Response(200, None)
        return Response(200, value if isinstance(value, bytes) else json.dumps(value).encode())

    def _openai(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Any:
        if (method, path) == ("POST", "/v1/files"):
            boundary = headers["content-type"].partition("boundary=")[2].encode()
            parts = body.split(b"--" + boundary)
            (content,) = [p for p in parts if b"filename=" in p]
            return self._file(content.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n"))
        if (method, path) == ("POST", "/v1/batches"):
            asked = json.loads(body)
            rows = self.files[asked["input_file_id"]].decode().strip().split("\n")
            requests = {r["custom_id"]: r["body"] for r in map(json.loads, rows)}
            return self._openai_job(self._begin(asked["metadata"]["name"], requests))
        if found := re.fullmatch(r"/v1/files/([\w-]+)/content", path):
            return self.files[found[1]]
        if found := re.fullmatch(r"/v1/batches/([\w-]+)", path):
            return self._openai_job(self._look(found[1]))
        if path.startswith("/v1/batches?"):
            return {
                "object": "list",
                "data": [self._openai_job(job) for job in self.jobs.values()],
                "has_more": False,
            }
        return None

    def _gemini(self, method: str, path: str, body: bytes) -> Any:
        if method == "POST" and path.endswith(":batchGenerateContent"):
            batch = json.loads(body)["batch"]
            inline = batch["inputConfig"]["requests"]["requests"]
            requests = {item["metadata"]["key"]: item["request"] for item in inline}
            return self._gemini_job(self._begin(batch["displayName"], requests))
        if found := re.fullmatch(r"/v1(?:beta)?/batches/([\w-]+)", path):
            return self._gemini_job(self._look(found[1]))
        if re.match(r"/v1(?:beta)?/batches\?", path):
            return {"operations": [self._gemini_job(job) for job in self.jobs.values()]}
        return None

    def _begin(self, name: str, requests: dict[str, dict[str, Any]]) -> Job:
        job = Job(f"job-{len(self.jobs)}", name, requests)
        self.jobs[job.id] = job
        return job

    def _look(self, job_id: str) -> Job:
        job = self.jobs[job_id]
        job.looks += 1
        if job.looks >= self.looks and job.results is None:
            job.results = {}
            for key, request in () if self.refuse else job.requests.items():
                fate = self.fate.get(prompt_of(request), "")
                if fate in ("error", "expired"):
                    job.results[key] = {"fate": fate}
                    continue
                fault = "" if fate in ("missing", "garbled") else fate
                answer = self.vendor.complete(request, fault, True)
                if fate == "garbled":
                    answer = {"choices": []} if "choices" in answer else {"modelVersion": "fake"}
                if fate != "missing":
                    job.results[key] = answer
        return job

    def _file(self, content: bytes) -> dict[str, Any]:
        name = f"file-{len(self.files)}"
        self.files[name] = content
        return {
            "id": name,
            "object": "file",
            "bytes": len(content),
            "created_at": 1,
            "filename": "x.jsonl",
            "purpose": "batch",
            "status": "processed",
        }

    def _openai_job(self, job: Job) -> dict[str, Any]:
        ended = job.results is not None
        value: dict[str, Any] = {
            "id": job.id,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "input_file_id": "file-0",
            "completion_window": "24h",
            "created_at": 1,
            "status": "in_progress",
            "metadata": {"name": job.name},
            "request_counts": {"total": len(job.requests), "completed": job.looks, "failed": 0},
        }
        if ended and self.refuse:
            errors = [{"code": "invalid", "message": self.refuse}]
            return value | {"status": "failed", "errors": {"object": "list", "data": errors}}
        if ended:
            good, bad = [], []
            for key, result in (job.results or {}).items():
                row: dict[str, Any] = {"id": "r", "custom_id": key, "response": None, "error": None}
                if result.get("fate") == "error":
                    message = {"error": {"message": "the prompt is too long"}}
                    bad.append(row | {"response": {"status_code": 400, "body": message}})
                elif result.get("fate") == "expired":
                    error = {"code": "batch_expired", "message": "This request expired."}
                    bad.append(row | {"error": error})
                else:
                    good.append(row | {"response": {"status_code": 200, "body": result}})
            expired = any(row["error"] for row in bad)
            value["status"] = self.expired_as.lower() if expired else "completed"
            for name, rows in (("output_file_id", good), ("error_file_id", bad)):
                if rows:
                    value[name] = self._file("\n".join(map(json.dumps, rows)).encode())["id"]
        return value

    def _gemini_job(self, job: Job) -> dict[str, Any]:
        state, output = "RUNNING", None
        if job.results is not None:
            expired = any(result.get("fate") == "expired" for result in job.results.values())
            state = "FAILED" if self.refuse else self.expired_as if expired else "SUCCEEDED"
            rows = []
            for key, result in job.results.items():
                row: dict[str, Any] = {} if self.nameless else {"metadata": {"key": key}}
                if result.get("fate") == "error":
                    rows.append(row | {"error": {"code": 3, "message": "the prompt is too long"}})
                elif "fate" not in result:
                    rows.append(row | {"response": result})
            output = {"inlinedResponses": {"inlinedResponses": rows}} if rows else None
        metadata = {"displayName": job.name, "state": f"BATCH_STATE_{state}"}
        return {
            "name": f"batches/{job.id}",
            "metadata": metadata | ({"output": output} if output else {}),
        }
