"""Process of a user without the package: load published checkpoints through every class there is, and ask each about a clip.

    python loader.py PLAN.json

It runs where `clip.mp4` lies. The plan says whether `storm_hf` may be imported, what to load and how. It prints a JSON object from cells to answers.
"""

import contextlib
import io
import json
import re
import sys
from pathlib import Path


PLAN = json.loads(Path(sys.argv[1]).read_text())
if not PLAN["is_installed"]:
    sys.modules["storm_hf"] = None  # importing it raises ImportError

import huggingface_hub  # noqa: E402
import peft  # noqa: E402
import transformers  # noqa: E402
from transformers.video_utils import load_video  # noqa: E402


if PLAN["is_installed"]:
    import storm_hf  # noqa: F401

PLACE = {"revision": PLAN["revision"]} if PLAN["revision"] else {}
TRUSTED = {**PLACE, "trust_remote_code": True}
FRAMES, METADATA = load_video("clip.mp4", num_frames=PLAN["num_frames"])
CONTENT = [{"type": "video", "video": FRAMES}, {"type": "text", "text": "What happens next?"}]
MESSAGES = [{"role": "user", "content": CONTENT}]
READING = {"do_sample_frames": False, "video_metadata": [METADATA]}


def answer(model, processor):
    """Answer of a model about the clip."""
    inputs = processor.apply_chat_template(
        MESSAGES,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs=READING,
    )
    output = model.eval().generate(**inputs, max_new_tokens=32)
    return processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def whole_models(repo, processor):
    """Each Auto class, and the pipeline."""
    for name in ("AutoModel", "AutoModelForImageTextToText", "AutoModelForMultimodalLM", "AutoModelForCausalLM"):
        yield name, answer(getattr(transformers, name).from_pretrained(repo, **TRUSTED), processor)
    pipe = transformers.pipeline("image-text-to-text", model=repo, processor=processor, **TRUSTED)
    said = pipe(text=MESSAGES, processor_kwargs=READING, max_new_tokens=32, return_full_text=False)
    yield "pipeline", said[0]["generated_text"]


def adapters(repo, base, processor):
    """Each door to an adapter of a STORM."""
    model = transformers.AutoModelForImageTextToText.from_pretrained(repo, **TRUSTED)
    yield "adapter, AutoModelForImageTextToText", answer(model, processor)
    model = peft.AutoPeftModelForCausalLM.from_pretrained(repo, **TRUSTED)
    yield "adapter, AutoPeftModelForCausalLM", answer(model, processor)
    model = transformers.AutoModelForImageTextToText.from_pretrained(base, trust_remote_code=True)
    yield "adapter, PeftModel", answer(peft.PeftModel.from_pretrained(model, repo, **PLACE), processor)


def quick_start(repo):
    """Output of the card's first block of code."""
    card = Path(huggingface_hub.hf_hub_download(repo, "README.md", **PLACE)).read_text()
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], {})
    return said.getvalue().strip("\n")


def load_checkpoint(repo):
    """The package's own door, which also opens an adapter of a plain model."""
    from storm_hf.evaluation import load_checkpoint as load

    return answer(*load(repo))


def main():
    """Fill the cells of the matrix that the plan asks for."""
    processor = transformers.AutoProcessor.from_pretrained(PLAN["model"], trust_remote_code=False, **PLACE)
    cells = dict(whole_models(PLAN["model"], processor))
    cells["class"] = type(transformers.AutoModel.from_pretrained(PLAN["model"], **TRUSTED)).__module__.partition(".")[
        0
    ]
    cells.update(adapters(PLAN["adapter"], PLAN["base"], processor))
    if not PLAN["revision"]:
        cells["quick start"] = quick_start(PLAN["model"])
    if PLAN["is_installed"]:
        cells["load_checkpoint"] = load_checkpoint(PLAN["model"])
        cells["adapter, load_checkpoint"] = load_checkpoint(PLAN["adapter"])
        cells["adapter, quick start"] = quick_start(PLAN["adapter"])
        cells["adapter of a plain model, load_checkpoint"] = load_checkpoint(PLAN["adapter_of_plain"])
    cells["transformers"] = transformers.__version__
    sys.stdout.write(json.dumps(cells))


if __name__ == "__main__":
    main()
