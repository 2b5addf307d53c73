"""Entry point of the `storm` command, outside of the package so that `--help` needs neither torch nor transformers.

`import storm_hf` registers STORM with the Auto classes of transformers, which loads both. If this module was imported first,
the package leaves that to `storm_hf.model`, which a command imports when it needs a model.
"""


def main() -> None:
    """Run the `storm` command."""
    from storm_hf.cli import main as run  # not at the top: the package looks for this module in `sys.modules`

    run()
