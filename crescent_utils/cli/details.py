"""Details: what `crescent COMMAND --help` says beyond its options, for a reader of the README who goes on."""

from __future__ import annotations

GENERAL = """\
A run is a folder under outputs/; its profile is a YAML file that holds what differs from the notebooks' defaults. See
params/, whose files say at their top what they need, and README.md. `crescent COMMAND --help` says more of each.

exit status: 0 done; 1 a stage failed or a number differs; 2 bad input, named with what is allowed before any model
loads; 130 interrupted (the same command goes on)
"""

RUN = """\
what is done again
  A finished stage is done again when a parameter, the notebook's code, or the content of what it reads has changed: a
  model, domain, question file, benchmark file, table, or the scores of another run. Names and places do not count, nor
  does the engine. What was sampled stands in the store and is never sampled twice; a training of the same rows, recipe
  and base is taken over. --plan samples a probe of a minute, whose completions the run goes on with, and says what the
  run would ask for, what the store holds of it, and how long the rest takes, with what a recorded run like it
  (replay_from) kept and took.

models
  `model` is a hub id, a folder, or `bundled` (SmolLM2-135M-Instruct out of a package). Weights are safetensors, and a
  repository's own code is never run. `make setup` takes the CUDA lock where it finds an NVIDIA GPU of compute
  capability 7.5 or above (python3 setup_env.py --cuda asks for it); below 8.0 transformers samples.

engines (a completion is a function of its seed, as far as the engine allows)
  vllm          vLLM in this process; any of its arguments go into `engine_args`, e.g. {tensor_parallel_size: 4}. On CPU
                its batch, order and cuts changed 1 of 1,190 completions (bfloat16 rounds); on CUDA the batch can change
                rounding
  transformers  AutoModelForCausalLM in batches that share prompts and shrink; CPU, CUDA, Apple. In float32 on CPU batch
                and order changed none of 520
  server        any OpenAI-compatible endpoint, one or several `base_urls`. From two `vllm serve` on CPU and from one of
                them 517 of 520 were the same
  replay        the store answers; nothing is sampled
  auto          vLLM where it works, else transformers
  With several servers requests are spread over them, one that dies is left out, and what fails is tried again. Before
  anything is sampled each server is checked: it serves the model by that name, and turns a chat into the same tokens as
  the model's own template. The key comes from CRESCENT_API_KEY alone; a key or a login in a parameter is refused.
  A completion is stored under what it is a function of: the model (weights, tokenizer, chat template), the messages,
  the start of the reply, the sampling settings, the run's seed and the sample's number. So a run can be cut and goes
  on, on another engine or machine; one process at a time writes to a run's store. A prompt that does not fit
  `max_model_len` is never cut: it comes back as "prompt too long", is counted, and stands in `rejected`.

benchmarks
  `evaluate_on` names them. They come from the hub, or from `benchmark_dir` (or $CRESCENT_BENCHMARK_DIR) with
  gsm8k_test.jsonl, gsm8k_train.jsonl, ASDiv.xml, gsmplus_testmini.jsonl, svamp_test.jsonl, svamp_train.jsonl,
  math500.jsonl and bbh/*.json. How an answer that is not one number is judged stands at the top of
  crescent_utils/benchmarks/scoring.py. `general_tasks` takes any task of lm-evaluation-harness (arc_challenge,
  hellaswag, mmlu, winogrande, truthfulqa_mc2 ...), task files of your own in `benchmark_dir`, and the kit's own, which
  need no hub: copying, verb_agreement, word_classes, and bbh_navigate and the like out of bbh/*.json.

training
  `method` is lora, full, or qlora (4-bit, NVIDIA GPU and bitsandbytes). What is trained is float32, computed in
  bfloat16 where the GPU or the CPU (AVX-512 BF16, AMX) computes in it, in float16 on an older GPU, else in float32;
  `dtype` decides it by hand, and a CPU without bfloat16 ends at other weights than the reference's. Before the first
  step each pair's prompt is compared, token for token, with the vote's request, and the loss mask and the disk are
  checked. Cut at any time, a training goes on from its last checkpoint to the same weights (tested with kill -9 on
  CPU); a loss that is no number or diverges stops it and leaves the last good checkpoint.
  Several GPUs need `processes: N` (accelerate launch; on CPU torchrun), several nodes also
  `accelerate_args: [--num_machines, "2", --machine_rank, "0", --main_process_ip, HOST]`, and on the other nodes
  `accelerate launch ... -m crescent_utils.finetune.sft outputs/RUN/finetune/trainer`. Two processes on CPU are tested
  to give one process's loss; several GPUs, FSDP and QLoRA have not been run by us.
  `random_label_control` trains a second model on the same questions, each with the path of another one (for a second
  training's time). `student: none` leaves 05 out, which with its answers takes about four minutes of a laptop run;
  `student_data` names what else a student could learn from at the pairs' budget.

LMSI's profiles leave 01 and 02 out, as their questions come from elsewhere (`question_source`).
"""

PREFLIGHT = """\
Asks held-out items as the vote would, and greedily: the majority minus the greedy answer, paired, with everything that
it depends on. Ends in one line: go, no headroom, or cannot be told, and what to change. What it samples, the run has.
"""

SWEEP = """\
Runs the profile alone and with each overlay, each with every seed; what two runs have in common is sampled once. Ends
in what each overlay changed, paired by item. The kit's overlays: params/ablations/.
"""

ROUNDS = """\
The tuned model of a round makes the next round's data, which replaces what was learned before, or accumulates with it.
Writes a table and a figure of what is watched for a collapse: accuracy, yield, diversity, agreement, lengths, the share
of right labels.
"""

STUDY = """\
All sweeps and rounds of a study file, params/study.yaml unless another is named. Writes outputs/study/: every claim's
verdict, and whether preflight foretold what each setting gained. Goes on after any cut.
"""

REPORT = "One self-contained HTML file; a run's own is written at its end.\n"

VERIFY = """\
To check a run without a GPU, put its folder under outputs/. The kit's notebooks are executed on a replay of its store,
and each table is compared. What needs a model, training, cannot be computed again; the answers of the trained models
are in the store. Where the run read files of its own, say where they lie: -p benchmark_dir=… -p embedder=…
-p question_source=…. A replay needs another `run` than its `replay_from`.
"""

PUBLISH = "A model folder and its pairs, with cards. Nothing is pushed unasked; then it is private unless --public.\n"

STORE = "The store is outputs/RUN/store.sqlite. Several machines may sample for a run, each into its own; then merge.\n"

DOCTOR = "Engines that a killed run left behind are named, and ended only with --kill-leftovers.\n"

OF_COMMAND = {
    "run": RUN,
    "preflight": PREFLIGHT,
    "sweep": SWEEP,
    "rounds": ROUNDS,
    "study": STUDY,
    "report": REPORT,
    "verify": VERIFY,
    "publish": PUBLISH,
    "store": STORE,
    "doctor": DOCTOR,
}
