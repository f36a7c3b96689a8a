"""Makes metrics.json: scores with labels, and what scikit-learn measures on them. See README.md."""

import argparse
import json
import pathlib

import numpy as np
import sklearn
from sklearn.metrics import confusion_matrix, log_loss, roc_auc_score, top_k_accuracy_score


def case(name, logits, labels):
    logits = logits.astype(np.float32)
    wide = logits.astype(np.float64)
    scores = np.exp(wide - wide.max(axis=1, keepdims=True))
    scores /= scores.sum(axis=1, keepdims=True)
    loss = log_loss(labels, scores, labels=list(range(logits.shape[1])))
    # Rounded, so that scores which are equal but for the last bits of a sum are equal.
    scores = scores.astype(np.float32).astype(np.float64)
    classes = list(range(logits.shape[1]))
    # Of two classes scikit-learn's functions take one score; both averages of areas are then that one area.
    two = len(classes) == 2

    def top_k(k):
        if k >= len(classes):
            return 1.0
        scored = wide[:, 1] - wide[:, 0] if two else wide
        return top_k_accuracy_score(labels, scored, k=k, labels=classes)

    top = {f"top{k}": top_k(k) for k in (1, 2, 3)}
    auc = {
        f"auc_{way}": roc_auc_score(labels, scores[:, 1]) if two else roc_auc_score(labels, scores, multi_class=way)
        for way in ("ovo", "ovr")
    }
    return {
        "name": name,
        "classes": len(classes),
        "logits": [float(x) for x in logits.ravel()],
        "labels": labels.tolist(),
        "loss": float(loss),
        "confusion": confusion_matrix(labels, wide.argmax(axis=1), labels=classes).tolist(),
        **{k: float(v) for k, v in (top | auc).items()},
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    output = parser.parse_args().output
    rng = np.random.default_rng(7)

    def drawn(count, classes, weights=None):
        labels = rng.choice(classes, size=count, p=weights)
        labels[:classes] = np.arange(classes)
        logits = rng.normal(size=(count, classes))
        logits[np.arange(count), labels] += rng.normal(0.7, 1.0, size=count)
        return logits, labels

    cases = [case("ten classes", *drawn(160, 10)), case("two classes", *drawn(60, 2))]
    cases.append(case("three unequal classes", *drawn(120, 3, [0.8, 0.15, 0.05])))
    # Steps of 1/2 make many equal scores in a column, and the other columns' powers of two keep equal rows equal. The
    # highest score of a row is alone, since scikit-learn's top-k and numpy's argmax break a tie for it in two ways.
    logits, labels = drawn(120, 3)
    logits = np.round(2 * logits) / 2
    logits[np.arange(120), rng.choice(3, size=120)] = 8
    logits += 0.25 * np.array([0, 1, 2])
    cases.append(case("tied scores", logits, labels))
    text = json.dumps({"scikit-learn": sklearn.__version__, "cases": cases})
    (output / "metrics.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
