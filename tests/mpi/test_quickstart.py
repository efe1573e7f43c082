#!/usr/bin/env python3
"""The quickstart's job learns its digits from three seeds, and freezing saves the bytes that it should."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import harness  # noqa: E402

JOB = os.path.join(harness.ROOT, "jobs", "quickstart", "job.yaml")
HEAD = 4 * 4 * 64 * 64 + 64 + 64 * 5 + 5                     # parameters: flatten, fc1, predictions
LATE = HEAD + 9 * 32 * 64 + 64 + 9 * 64 * 64 + 64            # and block3
FULL = HEAD + 72405 - 325                                    # and the base without its own head


class Quickstart(harness.Case):
    def test_accuracy_of_three_seeds(self):
        for seed in (1, 2, 3):
            folder = self.path("run-%d" % seed)
            self.succeed("train", JOB, "--set", "output=" + folder, "--set", "training.seed=%d" % seed, ranks=2)
            rows = harness.history(folder)
            self.assertGreaterEqual(rows[-1]["val_accuracy"], 0.96, "seed %d" % seed)
            stages = {e.get("name", e["stage"]): e for e in harness.events(folder, "stage")}
            self.assertEqual(stages["head"]["trainable_params"], HEAD)
            self.assertEqual(stages["finetune"]["trainable_params"], LATE)
            self.assertEqual(stages["finetune"]["full_gradient_bytes"], 4 * FULL)


if __name__ == "__main__":
    harness.main()
