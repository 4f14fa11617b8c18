"""The command `visxp VERB ...`: each verb is a module that `python -m` also runs."""

import difflib
import runpy
import sys

VERBS = {
    "prepare": ("data_prep.prepare", "videos to 1-second clips in shards"),
    "train": ("visxp_jax.main", "clips to a model, figures and pages"),
    "extract": ("visxp_jax.extract", "videos to features, a row for each second"),
    "agreement": ("visxp_jax.agreement", "where sound does not belong to pictures"),
    "search": ("visxp_jax.search", "features to an index; what is like a file"),
    "page": ("visxp_jax.page", "an index to a page to search it by hand"),
    "export": ("visxp_jax.export", "a model to safetensors, StableHLO and a card"),
    "import": ("visxp_jax.production.adopt", "a VisXP checkpoint to a model"),
    "segment": ("visxp_jax.production.segment", "videos to VisXP's folders"),
    "folders": ("visxp_jax.production.extract", "VisXP's folders to its features"),
    "doctor": ("visxp_jax.doctor", "what is missing here; why spectrograms differ"),
}
USAGE = "usage: visxp VERB ...; `visxp VERB --help` says more\n\n" + "\n".join(
    f"  {verb:9}  {what}" for verb, (_, what) in VERBS.items()
)


def main() -> None:
    """Entry point; exits as the verb does, and with 2 if there is none such."""
    verb = sys.argv[1] if len(sys.argv) > 1 else ""
    if verb in ("-h", "--help"):
        print(USAGE)
        return
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(VERBS)}."
        print(f"error: visxp has no verb {verb!r}; {hint}", file=sys.stderr)
        sys.exit(2)
    module, _ = VERBS[verb]
    sys.argv = [f"visxp {verb}", *sys.argv[2:]]
    # As `python -m` does, so that worker processes find their way back to it.
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
