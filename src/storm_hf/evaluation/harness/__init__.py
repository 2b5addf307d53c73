"""The four benchmarks through lmms-eval, on its own unmodified tasks.

    plugin              the entry point: `python -m lmms_eval --model storm` finds the model here
    settings            what can be said in `--model_args`
    chat_model          the model as lmms-eval calls it
    questions           a request of lmms-eval as a conversation with decoded videos
    generation          conversations in, answers and what they cost out
    answer_log          answers on disk, so that a killed run goes on where it was
    benchmarks          names, tasks, and where their data lies
    run                 `storm evaluate`: variants x tasks, each finished pair once
    task_process        the process in which lmms-eval runs

lmms-eval is imported by `chat_model` and `task_process` alone.
"""
