"""A STORM checkpoint answers questions about video files, without the package storm_hf.

python standalone.py CHECKPOINT QUESTIONS.json      [{"video": "clip.mp4", "text": "Which cup ...?"}, ...]
"""

import json
import sys
from pathlib import Path


sys.modules["storm_hf"] = None  # type: ignore[assignment]  # importing it from here on is an error

from transformers import AutoModel, AutoProcessor  # noqa: E402
from transformers.video_utils import load_video  # noqa: E402


checkpoint, questions = sys.argv[1:]
model = AutoModel.from_pretrained(checkpoint, trust_remote_code=True).eval()
processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=True)
answers = []
for question in json.loads(Path(questions).read_text()):
    frames, metadata = load_video(question["video"], backend="pyav")
    content = [{"type": "video", "video": frames}, {"type": "text", "text": question["text"]}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        add_generation_prompt=True,
        sanitize_control_tokens=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"video_metadata": [metadata], "do_sample_frames": False},
    )
    output = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    answers.append(processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip())
sys.stdout.write(json.dumps(answers) + "\n")
