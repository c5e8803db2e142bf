"""The server as its clients meet it: OpenAI's SDK, other programs, and those that mean it ill."""

import base64
import json
import os
import subprocess
import sys
import threading
import time
from io import BytesIO
from pathlib import Path

import httpx
import openai
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from openai.types import ImagesResponse
from PIL import Image
from schemathesis.checks import not_a_server_error

from examples import server_client
from hybridstitch.cli import main
from hybridstitch.mini import opened
from serving import SIZE, recipe, serving

CALL = {"prompt": "a big dog on a meadow", "size": "32x16"}
ADAPTIVE = "hybrid-stitch:min-large=0.3"
OURS = {"seed": 5, "num_inference_steps": 4, "policy": "large"}


@pytest.fixture(scope="module")
def here(tmp_path_factory, mini):
    """A server by a recipe."""
    folder = tmp_path_factory.mktemp("serve")
    words = ("--recipe", str(recipe(folder / "recipe.json")), "--timeout", "60")
    limits = {"HYBRIDSTITCH_MAX_STEPS": "12", "HYBRIDSTITCH_MAX_IMAGES": "3", "HYBRIDSTITCH_MAX_BODY_MIB": "2"}
    with serving(folder, mini, *words, **limits, HYBRIDSTITCH_MAX_PIXELS="1000000", first={}) as running:
        yield running


@pytest.fixture(scope="module")
def client(here):
    return openai.OpenAI(base_url=f"{here.url}/v1", api_key="none is asked for", max_retries=0)


def file_of(base64_json):
    return base64.b64decode(base64_json)


def picture(size=(48, 32), mode="RGB", hole=None):
    image = Image.effect_noise(size, 80).convert(mode)
    if hole is not None:
        image.putalpha(255)
        image.paste((0, 0, 0, 0), hole)
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


# --- OpenAI's SDK ---


def test_the_page_and_health_answer_while_the_pair_is_opened_and_requests_wait_for_it(here):
    assert here.early == {"/": 200, "/health/live": 200, "/health/ready": 503}
    assert here.first.result().status_code == 200


def test_openai_generates(client):
    found = client.images.generate(**CALL, n=2, quality="high", user="somebody", extra_body={"seed": 5})
    assert isinstance(found, ImagesResponse)
    assert [Image.open(BytesIO(file_of(image.b64_json))).size for image in found.data] == [SIZE, SIZE]
    assert (found.size, found.quality, found.output_format, found.background) == ("32x16", "high", "png", "opaque")
    assert found.usage.input_tokens == found.usage.total_tokens - found.usage.output_tokens > 0
    ours = found.hybridstitch
    assert [image["seed"] for image in ours["images"]] == [5, 6]
    assert (ours["policy"], ours["steps"], ours["notes"]) == ("schedule:program=L2 H2@0.3 S2", 6, [])
    assert [image["drew"] for image in ours["images"]] == [{"L": 2, "S+L": 2, "S": 2}] * 2
    assert all(len(image["trace"]) == 64 and image["seconds"] > 0 for image in ours["images"])


def test_what_generate_would_warn_of_is_noted(here):
    notes = here.draw(prompt="a big dgo", policy="hybridstitch-30", num_inference_steps=5).json()["hybridstitch"][
        "notes"
    ]
    assert notes[0] == "the miniature world does not know 'dgo'; near: dog"
    assert any("thresholds" in note for note in notes[1:]), notes


def test_openai_streams_the_small_models_sketch_first(client):
    events = list(client.images.generate(**CALL, stream=True, partial_images=3, quality="max", extra_body={"seed": 5}))
    kinds = [event.type for event in events]
    assert kinds == ["image_generation.partial_image"] * 3 + ["image_generation.completed"]
    assert [event.partial_image_index for event in events[:3]] == [0, 1, 2]
    pictures = [file_of(event.b64_json) for event in events]
    assert len(set(pictures)) == 4
    small = client.images.generate(**CALL, extra_body={"seed": 5, "policy": "small", "num_inference_steps": 8})
    assert Image.open(BytesIO(pictures[0])).tobytes() == Image.open(BytesIO(file_of(small.data[0].b64_json))).tobytes()
    whole = client.images.generate(**CALL, quality="max", extra_body={"seed": 5})
    assert pictures[3] == file_of(whole.data[0].b64_json)
    assert events[3].usage.output_tokens == whole.usage.output_tokens


def test_openai_edits_all_of_a_picture_or_where_the_mask_is_transparent(client):
    whole = client.images.edit(image=("a.png", picture()), prompt="a red star", extra_body=OURS)
    assert whole.size == "48x32"  # the picture's own
    large = client.images.edit(image=("a.png", picture((600, 300))), prompt="a red star", extra_body=OURS)
    assert large.size == "128x64"
    assert whole.hybridstitch["strength"] == 0.6
    assert whole.hybridstitch["images"][0]["drew"] == {"L": 4}  # all steps that were asked for
    mask = picture(mode="RGBA", hole=(24, 0, 48, 32))
    hole = {"image": ("a.png", picture()), "mask": ("m.png", mask), "prompt": "a red star", "size": "32x16"}
    masked = client.images.edit(**hole, extra_body=OURS)
    assert (masked.size, masked.hybridstitch["strength"]) == ("32x16", 1.0)
    own = client.images.edit(image=("a.png", mask), prompt="a red star", size="32x16", extra_body=OURS)
    assert own.hybridstitch["strength"] == 1.0  # its own transparency is a mask
    assert client.images.edit(**hole, extra_body=OURS).data[0].b64_json == masked.data[0].b64_json
    fast = client.images.edit(**hole, extra_body={"seed": 5, "speed": 3.0})
    assert (fast.hybridstitch["speed"], fast.hybridstitch["closeness"]) == (None, None)  # measured on whole pictures
    assert any("of an edit neither its speed nor its closeness holds" in note for note in fast.hybridstitch["notes"])
    events = list(client.images.edit(**hole, stream=True, partial_images=2, extra_body=OURS))
    assert [event.type for event in events] == ["image_edit.partial_image"] * 2 + ["image_edit.completed"]


def test_openai_lists_the_pair(client):
    (pair,) = client.models.list().data
    assert pair.id == "mini"
    assert [point["speed"] for point in pair.hybridstitch["front"]] == [1.0, 1.6, 3.0, 5.0]


def test_the_example_watches_and_asks_for_a_speed(client, tmp_path):
    saved = server_client.watch(client, **CALL, out=tmp_path, num_inference_steps=3, policy="L1 S*")
    assert [path.name for path in saved] == ["0.png", "1.png", "2.png"]
    assert [Image.open(path).size for path in saved] == [SIZE] * 3
    said = server_client.at_speed(client, **CALL, speed=3.0)
    assert (said["speed"], said["steps"]) == (3.0, 4)


def test_openai_meets_errors_it_knows(client):
    with pytest.raises(openai.BadRequestError, match="unknown field 'sede'; did you mean 'seed'"):
        client.images.generate(**CALL, extra_body={"sede": 5})
    with pytest.raises(openai.UnprocessableEntityError, match="speed=100 cannot be reached"):
        client.images.generate(**CALL, extra_body={"speed": 100})


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_other_files_are_smaller_the_harder_they_are_compressed(here, kind):
    files = [
        file_of(here.draw(output_format=kind, output_compression=share).json()["data"][0]["b64_json"])
        for share in (5, 100)
    ]
    assert [Image.open(BytesIO(file)).format for file in files] == [kind.upper()] * 2
    assert len(files[0]) < len(files[1])


# --- the same picture as `generate` draws ---


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        (("--recipe", "recipe.json"), {}),
        (("--recipe", "recipe.json", "--speed", 3), {"speed": 3}),
        (("--recipe", "recipe.json", "--speed", 5), {"speed": 5}),
        (("--recipe", "recipe.json", "--closeness", 0.94), {"closeness": 0.94}),
        (("--policy", "mini-few-4", "--size", "32x16"), {"policy": "mini-few-4"}),
        (
            ("--policy", ADAPTIVE, "--steps", 7, "--size", 16, "--negative", "a cat"),
            {"policy": ADAPTIVE, "num_inference_steps": 7, "size": "16x16", "negative_prompt": "a cat"}
        ),
        (("--policy", "large", "--steps", 6, "--size", "32x16"), {"quality": "max"}),
    ],
    ids=["as told", "shift", "levels", "closeness", "preset", "adaptive", "max"],
)  # fmt: skip
def test_a_picture_is_the_file_that_generate_writes(here, mini, words, fields, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(opened.FOLDER, str(mini))
    monkeypatch.chdir(here.log.parent)
    prompt, seed = "a small cat on a beach", 11
    code = main(["generate", prompt, "--seed", str(seed), "--out", str(tmp_path), "--json", *map(str, words)])
    written = json.loads(capsys.readouterr().out)["images"][0]["path"]
    assert code == 0
    answer = httpx.post(
        f"{here.url}/v1/images/generations", json={"prompt": prompt, "seed": seed, **fields}, timeout=60
    )
    assert answer.status_code == 200, answer.text
    assert file_of(answer.json()["data"][0]["b64_json"]) == Path(written).read_bytes()


# --- what the server says of itself ---


def test_a_request_is_followed_and_stopped(here):
    answers = []
    body = {**CALL, "quality": "max", "num_inference_steps": 12, "n": 3, "seed": 1}
    header = {"x-client-request-id": "my-own-id-1"}

    def ask():
        answers.append(httpx.post(f"{here.url}/v1/images/generations", json=body, headers=header, timeout=60))

    asking = threading.Thread(target=ask)
    asking.start()
    here.until(lambda: here.get("/v1/requests/my-own-id-1").status_code == 200)
    again = httpx.post(f"{here.url}/v1/images/generations", json=body, headers=header)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "id_in_use")
    state = here.get("/v1/requests/my-own-id-1").json()
    assert state["steps"] == 36
    assert state["predicted_seconds"] > 0
    assert httpx.delete(f"{here.url}/v1/requests/my-own-id-1").json()["state"] in ("stopped", "done")
    asking.join()
    assert answers[0].headers["x-request-id"] == "my-own-id-1"
    assert answers[0].status_code == (410 if here.get("/v1/requests/my-own-id-1").json()["state"] == "stopped" else 200)
    here.until(lambda: here.get("/health/ready").json()["drawing"] == 0)


def test_a_drawn_request_tells_who_drew_what(here):
    answer = here.draw(policy="L2 H@0.3")
    found = here.get(f"/v1/requests/{answer.headers['x-request-id']}").json()
    assert (found["state"], found["place"], found["steps_drawn"]) == ("done", 0, 3)
    (trace,) = found["traces"]
    assert len(trace["records"]) == 3
    assert trace["records"][2]["mask"]


def test_metrics_count(here):
    def value(name):
        return sum(float(line.split()[-1]) for line in here.get("/metrics").text.splitlines() if line.startswith(name))

    large = 'hybridstitch_steps_total{model="large"}'
    before = value(large), value("hybridstitch_refusals_total"), value("hybridstitch_pictures_total")
    here.draw(policy="L S S")
    here.draw(policy="nobody")
    assert (value(large), value("hybridstitch_refusals_total"), value("hybridstitch_pictures_total")) == (
        before[0] + 1, before[1] + 1, before[2] + 1,
    )  # fmt: skip
    assert value("hybridstitch_workers_ready") == 1
    assert value("hybridstitch_queue_seconds_count") > 0


def test_the_log_is_json_without_prompts(here):
    key = here.draw(prompt="a small robot at night").headers["x-request-id"]
    here.until(lambda: here.lines(id=key))
    (line,) = here.lines(id=key)
    assert (line["event"], line["status"], line["state"], line["steps"]) == ("answered", 200, "done", 3)
    assert "robot" not in here.log.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_process_that_speaks_http_holds_no_torch(here):
    worker = here.get("/health/ready").json()["workers"][0]["pid"]
    assert "libtorch" in Path(f"/proc/{worker}/maps").read_text()
    assert "libtorch" not in Path(f"/proc/{here.process.pid}/maps").read_text()


# --- those that mean it ill ---


def test_openapi_holds_and_no_case_breaks_the_server(here):
    schema = schemathesis.openapi.from_url(f"{here.url}/openapi.json")
    operations = list(schema.get_all_operations())
    assert len(operations) >= 8
    quick = {"num_inference_steps": 2, "n": 1, "size": "16x16"}
    for operation in (found.ok() for found in operations):

        @given(case=operation.as_strategy())
        @settings(
            max_examples=12, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        def holds(case):
            if isinstance(case.body, dict) and "prompt" in case.body:
                case.body = {**case.body, **quick}
            case.call_and_validate(checks=[not_a_server_error], timeout=30)

        holds()
    assert here.get("/health/ready").status_code == 200


def bodies():
    """Names, and what is sent to /generations."""
    deep = "[" * 100_000 + "]" * 100_000
    big = "x" * (300 << 10)
    yield from {
        "nothing": "",
        "no JSON": "{",
        "no object": "[]",
        "a number": "7",
        "a string": '"a dog"',
        "null": "null",
        "deep lists": deep,
        "a deep field": '{"prompt": ' + deep + "}",
        "deep objects": '{"a":' * 50_000 + "1" + "}" * 50_000,
        "NaN alone": "NaN",
        "not UTF-8": b'{"prompt": "\xff\xfe"}',
        "a lone surrogate": '{"prompt": "\\ud800 dog"}',
        "too long a body": json.dumps({"prompt": big}),
        "a number of many digits": '{"prompt": "a dog", "seed": ' + "9" * 5_000 + "}",
    }.items()
    for name, value in {
        "prompt": [None, "", "   ", 5, ["a"], {}, True, "x" * 40_000, "dog " * 5_000],
        "n": [0, -1, 11, 1.5, "2", None, 1e400, True, 10**30],
        "size": ["big", "0x0", "1x1", "-16x16", "99999x99999", "100x60", "16x16;rm", "../../etc", 16],
        "seed": [-1, 2**63, 1.5, "1", float("nan"), [1]],
        "num_inference_steps": [0, -5, 13, 10**9, "5"],
        "guidance_scale": [float("nan"), float("inf"), float("-inf"), -1, "4", 1e300],
        "speed": [0, 1, -2, float("nan"), 1e300],
        "closeness": [0, 1.5, float("nan"), -1],
        "policy": [
            "",
            "nobody",
            "L" * 5_000,
            "replay:",
            "reuse:" * 500,
            "skip:large-steps=-1",
            "../../x",
            7,
            "L99999999",
        ],
        "quality": ["best", 1],
        "output_format": ["gif", "../png"],
        "output_compression": [101, -1],
        "partial_images": [4, -1],
        "background": ["transparent"],
        "response_format": ["url"],
        "timeout": [0, -1, float("nan"), 1e-9],
        "user": ["x" * 1_000],
        "__proto__": [{}],
    }.items():
        yield from ((f"{name}={value!r:.30}", json.dumps({**CALL, name: value})) for value in value)


HOSTILE = list(bodies())


def test_hostile_bodies_are_refused_at_once(here):
    assert len(HOSTILE) >= 60
    with httpx.Client(base_url=here.url, timeout=10) as ill:
        for name, body in HOSTILE:
            begun = time.perf_counter()
            answer = ill.post("/v1/images/generations", content=body, headers={"content-type": "application/json"})
            assert 400 <= answer.status_code < 500, (name, answer.status_code, answer.text[:200])
            assert time.perf_counter() - begun < 1, name
            assert len(answer.text) < 2_000, name
            assert answer.json()["error"]["message"], name
    assert here.get("/health/ready").json()["waiting"] == 0


def test_hostile_pictures_are_refused_at_once(here):
    bomb = BytesIO()
    Image.new("1", (30_000, 30_000)).save(bomb, "PNG")
    cut = picture()[:-40]
    wrong = picture(size=(16, 16), mode="RGBA", hole=(0, 0, 8, 8))
    whole = picture(mode="RGBA", hole=(0, 0, 0, 0))
    cases = {
        "no picture": ({"image": ("a.png", b"GIF89a nothing")}, 400),
        "empty": ({"image": ("a.png", b"")}, 400),
        "an address": ({"image": ("a.png", b"http://169.254.169.254/latest")}, 400),
        "a bomb": ({"image": ("a.png", bomb.getvalue())}, 413),
        "cut off": ({"image": ("a.png", cut)}, 400),
        "too large": ({"image": ("a.png", os.urandom(3 << 20))}, 413),
        "an SVG": ({"image": ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>")}, 400),
        "no image": ({"mask": ("m.png", picture())}, 400),
        "a mask of another size": ({"image": ("a.png", picture()), "mask": ("m.png", wrong)}, 400),
        "a mask without transparency": ({"image": ("a.png", picture()), "mask": ("m.png", picture())}, 400),
        "a mask that is nowhere": ({"image": ("a.png", picture()), "mask": ("m.png", whole)}, 400),
        "a path for a name": ({"image": ("../../../etc/passwd", b"root")}, 400),
    }
    for name, (files, status) in cases.items():
        begun = time.perf_counter()
        answer = httpx.post(f"{here.url}/v1/images/edits", data={"prompt": "a dog"}, files=files, timeout=20)
        assert answer.status_code == status, (name, answer.text[:200])
        assert time.perf_counter() - begun < 1, name
    text = httpx.post(
        f"{here.url}/v1/images/edits", data={"prompt": "a dog", "image": "http://x/y.png"}, files={"mask": b""}
    )
    assert "URLs are not fetched" in text.json()["error"]["message"]
    plain = httpx.post(f"{here.url}/v1/images/edits", json={"prompt": "a dog"})
    assert plain.status_code == 415
    odd = httpx.post(
        f"{here.url}/v1/images/edits", data={"prompt": "a dog", "strenght": "1"}, files={"image": picture()}
    )
    assert "did you mean 'strength'?" in odd.json()["error"]["message"]


@pytest.mark.parametrize("key", ["..%2f..%2fetc%2fpasswd", "%00", "a" * 5_000, "%ff%fe", "'; DROP TABLE"])
def test_ids_that_are_paths_are_nobodys(here, key):
    for method in ("GET", "DELETE"):
        assert httpx.request(method, f"{here.url}/v1/requests/{key}").status_code == 404
    refused = httpx.post(f"{here.url}/v1/images/generations", json=CALL, headers={"x-client-request-id": "../../etc"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "bad_id")


def test_a_page_of_another_site_cannot_call_this_machine(here):
    refused = httpx.get(f"{here.url}/v1/models", headers={"host": "evil.example"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "bad_host")


# --- how it is started ---


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--speed", "2"), "--speed 2 was given without a recipe"),
        (("--target-seconds", "2"), "--target-seconds 2 was given without a recipe"),
        (("--recipe", "a.json", "--recipe", "b.json"), "--recipe was given 2 times, and a server on one machine"),
        (("--pairs-per-replica", "2"), "--pairs-per-replica 2 was given; it is of several recipes"),
        (("--port", "99999"), "port=99999 was given"),
        (("--host", "203.0.113.7", "--port", "0"), "cannot listen on"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(words, message, mini):
    run = subprocess.run(
        [sys.executable, "-m", "hybridstitch", "serve", "--port", "0", *words], capture_output=True, text=True,
        env={**os.environ, opened.FOLDER: str(mini), "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert run.returncode == 2
    said = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    assert message in said[0]
