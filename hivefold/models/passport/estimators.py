"""scikit-learn estimators, from what their pickle would build.

Parameters are what an estimator predicts with: the fitted arrays named below, and the nodes of trees.
"""

from __future__ import annotations

from typing import Final

from hivefold.models.passport.arrays import array_of, objects_of
from hivefold.models.passport.draft import Draft, Weight
from hivefold.models.passport.facts import TaskFamily
from hivefold.models.passport.trust import words
from hivefold.models.passport.values import Call, Listing, Value, attributes, called, entries, lookup

_LEARNED: Final = words(
    """coef_ intercept_ coefs_ intercepts_ cluster_centers_ support_vectors_ dual_coef_ theta_ var_ feature_log_prob_
    class_log_prior_ components_ mean_ scale_ singular_values_ means_ covariances_ weights_ precisions_ centroids_
    scalings_ xbar_ alpha_ X_train_ min_ data_min_ idf_ threshold_ lambdas_ quantiles_ embedding_"""
)
_INNER: Final = (
    *("estimators_", "estimator_", "best_estimator_", "_predictors", "calibrated_classifiers_", "steps"),
    *("transformers_", "transformer_list", "base_estimator_", "final_estimator_", "tree_"),
)
_FAMILIES: Final = (
    ("tree ensemble", ("Forest", "ExtraTrees", "GradientBoosting", "Bagging", "AdaBoost")),
    ("tree", ("DecisionTree", "ExtraTree")),
    ("mlp", ("MLP", "BernoulliRBM")),
    ("svm", ("SVC", "SVR", "OneClassSVM")),
    ("naive bayes", ("NB",)),
    ("nearest neighbours", ("Neighbors", "NearestCentroid", "LocalOutlierFactor")),
    ("clustering", ("KMeans", "DBSCAN", "Birch", "MeanShift", "Clustering", "Propagation", "OPTICS")),
    ("gaussian process", ("GaussianProcess",)),
    ("mixture", ("Mixture",)),
    ("decomposition", ("PCA", "SVD", "NMF", "FastICA", "Dictionary", "FactorAnalysis", "LatentDirichlet")),
    ("linear", ("Regression", "Ridge", "Lasso", "ElasticNet", "SGD", "Perceptron", "Linear", "Lars", "Regressor",
                "PassiveAggressive", "DiscriminantAnalysis", "LogisticRegression", "Matching", "ARD")),
)  # fmt: skip
_DEPTH: Final = 8


def describe(root: Value, draft: Draft) -> None:
    """Writes what the estimator at the root of a pickle is; nothing where there is none."""
    found = _estimator(root, 0, set())
    if found is None:
        return
    name = called(found).rpartition(".")[2]
    draft.framework, draft.architecture_name, draft.task = "scikit-learn", name, TaskFamily.TABULAR
    draft.architecture = _family(_last(found))
    version = lookup(found, "_sklearn_version")
    if isinstance(version, str):
        draft.format_version = f"{draft.format_version}, scikit-learn {version}"
    _ports(found, draft)
    seen: set[int] = set()
    _learned(found, draft, name, seen, 0)


def _estimator(value: Value, depth: int, seen: set[int]) -> Call | None:
    """The estimator itself, or the first in a container."""
    if isinstance(value, Call):
        return value if called(value).startswith("sklearn.") else None
    if depth > _DEPTH or id(value) in seen:
        return None
    seen.add(id(value))
    items = objects_of(value) if isinstance(value, Listing | tuple) else [item for _, item in entries(value)]
    return next((found for item in items[:64] if (found := _estimator(item, depth + 1, seen))), None)


def _last(found: Call) -> str:
    """The name of what decides: the last step of a pipeline, what a search found best."""
    for _ in range(_DEPTH):
        steps = objects_of(lookup(found, "steps"))
        inner = steps[-1] if steps else lookup(found, "best_estimator_")
        inner = inner[-1] if isinstance(inner, tuple) and inner else inner
        if not isinstance(inner, Call) or not called(inner).startswith("sklearn."):
            break
        found = inner
    return called(found).rpartition(".")[2]


def _family(name: str) -> str:
    return next((family for family, parts in _FAMILIES if any(part in name for part in parts)), "estimator")


def _ports(found: Call, draft: Draft) -> None:
    features = lookup(found, "n_features_in_")
    steps = objects_of(lookup(found, "steps"))
    if features is None and steps and isinstance(steps[0], tuple):
        features = lookup(steps[0][-1], "n_features_in_")
    if isinstance(features, int):
        draft.add_port(draft.inputs, "X", "FP64", (-1, features))
    classes = array_of(lookup(found, "classes_"))
    if classes is not None:
        draft.add_port(draft.outputs, "classes", classes.data_type or "BYTES", (-1,))
        draft.add_port(draft.outputs, "probabilities", "FP64", (-1, *classes.shape))


def _learned(value: Value, draft: Draft, path: str, seen: set[int], depth: int) -> None:
    """Adds the fitted arrays of an estimator and of those inside it, each once."""
    if depth > _DEPTH or id(value) in seen:
        return
    seen.add(id(value))
    items = objects_of(value)
    draft.budget.spend(1 + len(items))
    for item in items:
        _learned(item, draft, path, seen, depth + 1)
    if not isinstance(value, Call):
        return
    given = _fields(value, draft)
    if called(value).endswith(("._tree.Tree", ".TreePredictor")):
        _nodes(given.get("nodes"), draft, path)
    elif called(value).startswith("sklearn."):
        _arrays(given, draft, path)
        for name in _INNER:
            _learned(given.get(name), draft, f"{path}.{name}", seen, depth + 1)


def _fields(value: Call, draft: Draft) -> dict[str, Value]:
    """The attributes of an object, looked through once."""
    pairs = entries(attributes(value))
    draft.budget.spend(len(pairs))
    return {name: entry for name, entry in pairs if isinstance(name, str)}


def _arrays(fields: dict[str, Value], draft: Draft, path: str) -> None:
    # A scaler keeps the variance beside its root, which is what it divides by.
    for name in sorted((_LEARNED - {"var_"} if "scale_" in fields else _LEARNED) & fields.keys()):
        items = objects_of(fields[name])
        draft.budget.spend(len(items))
        for item in [fields[name], *items]:
            facts = array_of(item)
            if facts is not None and facts.data_type.startswith("FP"):
                size = facts.elements * int(facts.data_type[2:]) // 8
                draft.weights.append(Weight(f"{path}.{name}", facts.data_type, facts.shape, size, f"array {id(item)}"))


def _nodes(nodes: Value, draft: Draft, path: str) -> None:
    facts = array_of(nodes)
    if facts is not None:
        draft.weights.append(Weight(f"{path}.nodes", "NODE", facts.shape, 64 * facts.elements, f"array {id(nodes)}"))
