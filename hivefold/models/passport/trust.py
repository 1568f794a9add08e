"""What a pickle may name: known harmless names, known dangerous ones. Everything else is suspicious.

Harmless is a list of exact names. Even a module of a known framework holds functions that load files
or run text: a prefix would let them in (`torch.load`, `numpy.testing._private.utils.runstring`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from hivefold.models.passport.facts import Verdict


def words(text: str) -> frozenset[str]:
    """The words of a text: how long lists of names are written."""
    return frozenset(text.split())


_OLD_NAMES: Final = {
    "__builtin__": "builtins", "copy_reg": "copyreg", "cPickle": "pickle", "commands": "subprocess",
    "UserDict": "collections", "exceptions": "builtins",
}  # fmt: skip
"""Modules that Python 2 named differently: the unpickler maps them."""

_DANGEROUS_MODULES: Final = words(
    """
    _aix_support _bootlocale _ctypes _frozen_importlib _imp _io _osx_support _pickle _posixsubprocess _pyrepl
    _socket _testcapi _thread _winapi _xxsubinterpreters aiohttp ast asyncio atexit bdb cgitb cloudpickle code
    codeop commands compileall concurrent configparser cProfile ctypes dbm dill distutils doctest ensurepip
    faulthandler fileinput ftplib functools gc glob http httplib httplib2 idlelib imaplib imp importlib inspect io
    joblib jsonpickle lib2to3 linecache logging marshal mmap modulefinder multiprocessing nntplib nt ntpath numba
    operator optparse os pdb pickle pickletools pip pipes pkg_resources pkgutil platform poplib popen2 posix
    posixpath profile pstats pty py_compile pyclbr pydoc requests resource rlcompleter runpy sandbox sched
    selectors setuptools shelve shlex shutil signal site smtpd smtplib socket socketserver sqlite3 ssl subprocess
    symtable sys sysconfig tarfile telnetlib tempfile test threading timeit tkinter token trace traceback
    tracemalloc turtle types typing unittest urllib urllib2 urllib3 venv weakref webbrowser winreg wsgiref xmlrpc
    zipapp zipfile zipimport zipimporter
    """
)
"""Modules that start programs, open files or connections, or reach the interpreter, with all below them."""

_DANGEROUS_BUILTINS: Final = words(
    """
    __build_class__ __import__ apply breakpoint classmethod compile copyright delattr dir eval exec execfile exit
    file filter getattr globals hasattr help input locals map memoryview open print property quit raw_input reduce
    reload setattr staticmethod super type vars
    """
)
_DANGEROUS: Final = words(
    """
    numpy.load numpy.loads numpy.fromfile numpy.memmap numpy.loadtxt numpy.genfromtxt numpy.savetxt numpy.save
    numpy.testing._private.utils.runstring numpy.testing._private.utils.rundocs numpy.testing.utils.runstring
    numpy.f2py.crackfortran.getlincoef numpy.f2py.crackfortran._eval_length numpy.f2py.crackfortran.param_eval
    numpy.f2py.crackfortran.myeval numpy.f2py.diagnose.run_command numpy.distutils.exec_command.exec_command
    numpy.core._ufunc_reconstruct numpy._core._ufunc_reconstruct numpy.core._internal._ctypes numpy.lib.npyio.load
    numpy.lib._npyio_impl.load numpy.ctypeslib.load_library numpy.lib.format.read_array
    numpy.compat.py3k.npy_load_module numpy.f2py.compile numpy.lib.utils.safe_eval torch.load torch.save
    torch.storage._load_from_bytes torch.serialization.load torch.hub.load torch.hub.load_state_dict_from_url
    torch.hub.download_url_to_file torch.ops.load_library torch.classes.load_library torch.jit.load
    torch.jit.unsupported_tensor_ops.execWrapper torch.package.PackageImporter torch.compile
    torch._dynamo.guards.GuardBuilder.get torch._inductor.codecache.compile_file
    torch.fx.experimental.symbolic_shapes.ShapeEnv.evaluate_guards_expression
    torch.utils._config_module.load_config torch.utils._config_module.ConfigModule.load_config
    torch.utils.bottleneck.__main__.run_cprofile torch.utils.bottleneck.__main__.run_autograd_prof
    torch.utils.collect_env.run torch.utils.data.datapipes.utils.decoder.basichandlers
    torch.utils.cpp_extension.load torch.utils.cpp_extension.load_inline
    torch.fx.graph_module._deserialize_graph_module torch.fx.graph_module.reduce_graph_module
    torch.fx.graph_module._exec_with_source torch.multiprocessing.spawn
    torch.distributed.elastic.multiprocessing.start_processes torch.testing._internal.common_utils.shell
    sklearn.datasets.load_svmlight_file sklearn.datasets._base._fetch_remote sklearn.datasets.fetch_openml
    pandas.read_pickle pandas.eval pandas.core.computation.eval.eval pandas.io.common.get_handle
    pandas.io.pickle.read_pickle pandas.DataFrame.query pandas.read_csv tensorflow.io.read_file
    tensorflow.io.write_file tensorflow.py_function keras.models.load_model keras.utils.get_file scipy.io.loadmat
    cffi.FFI.dlopen
    """
)

_HARMLESS: Final = words(
    """
    builtins.object builtins.list builtins.dict builtins.set builtins.frozenset builtins.tuple builtins.int
    builtins.float builtins.complex builtins.bool builtins.str builtins.bytes builtins.bytearray builtins.slice
    builtins.range builtins.long builtins.unicode collections.OrderedDict collections.defaultdict
    collections.Counter collections.deque argparse.Namespace copyreg._reconstructor copyreg.__newobj__
    _codecs.encode datetime.datetime datetime.date datetime.timedelta datetime.time datetime.timezone
    numpy.ndarray numpy.dtype numpy.core.multiarray._reconstruct numpy._core.multiarray._reconstruct
    numpy.core.multiarray.scalar numpy._core.multiarray.scalar numpy.core.numeric._frombuffer
    numpy._core.numeric._frombuffer numpy.random.mtrand.RandomState
    numpy.random._pickle.__randomstate_ctor numpy.random._pickle.__bit_generator_ctor
    numpy.random._pickle.__generator_ctor numpy.random._mt19937.MT19937 numpy.random._pcg64.PCG64
    numpy.random._philox.Philox numpy.random._sfc64.SFC64 numpy.random.bit_generator.SeedSequence
    numpy.random.bit_generator.__pyx_unpickle_SeedSequence numpy.mean numpy.median numpy.log numpy.log1p numpy.exp
    scipy.sparse._csr.csr_matrix scipy.sparse._csc.csc_matrix scipy.sparse._coo.coo_matrix
    scipy.sparse._csr.csr_array scipy.sparse.csr.csr_matrix scipy.sparse.csc.csc_matrix
    scipy.interpolate._bsplines.BSpline joblib.numpy_pickle.NumpyArrayWrapper torch._utils._rebuild_tensor
    torch._utils._rebuild_tensor_v2 torch._utils._rebuild_tensor_v3 torch._utils._rebuild_parameter
    torch._utils._rebuild_parameter_with_state torch._utils._rebuild_qtensor torch._utils._rebuild_sparse_tensor
    torch._utils._rebuild_meta_tensor_no_storage torch._tensor._rebuild_from_type_v2 torch.Size torch.device
    torch.Tensor torch.Generator torch.nn.parameter.Parameter torch.nn.parameter.Buffer torch.BoolStorage
    torch.ByteStorage torch.CharStorage torch.ShortStorage torch.IntStorage torch.LongStorage torch.HalfStorage
    torch.FloatStorage torch.DoubleStorage torch.BFloat16Storage torch.ComplexFloatStorage
    torch.ComplexDoubleStorage torch.QInt8Storage torch.QUInt8Storage torch.QInt32Storage
    torch.storage.UntypedStorage torch.storage.TypedStorage torch.serialization._get_layout
    torch.per_tensor_affine torch.per_channel_affine sklearn.utils._bunch.Bunch sklearn.tree._tree.Tree
    sklearn.neighbors._kd_tree.KDTree sklearn.neighbors._kd_tree.newObj sklearn.neighbors._ball_tree.BallTree
    sklearn.neighbors._ball_tree.newObj sklearn.metrics._dist_metrics.EuclideanDistance
    sklearn.metrics._dist_metrics.EuclideanDistance64 sklearn.metrics._dist_metrics.newObj
    sklearn.calibration._CalibratedClassifier sklearn.calibration._SigmoidCalibration
    sklearn.cluster._birch._CFNode sklearn.cluster._birch._CFSubcluster
    sklearn.cluster._bisect_k_means._BisectingTree sklearn.cluster._kmeans._kmeans_single_lloyd
    sklearn.ensemble._hist_gradient_boosting.binning._BinMapper
    sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor
    sklearn.feature_selection._univariate_selection.f_classif
    sklearn.feature_selection._univariate_selection.f_regression
    sklearn.feature_selection._univariate_selection.chi2
    sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace
    sklearn.neural_network._stochastic_optimizers.AdamOptimizer
    sklearn.neural_network._stochastic_optimizers.SGDOptimizer
    sklearn.compose._column_transformer._RemainderColsList
    """
)
_HARMLESS_IN: Final = {
    "numpy": words(
        """
    bool bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 longdouble complex64
    complex128 str_ bytes_ datetime64 timedelta64 void intc uintc longlong ulonglong float_
    """
    ),
    "numpy.dtypes": words(
        """
    BoolDType Int8DType Int16DType Int32DType Int64DType UInt8DType UInt16DType UInt32DType UInt64DType
    Float16DType Float32DType Float64DType StrDType BytesDType ObjectDType LongDType
    """
    ),
    "torch": words(
        """
    float16 float32 float64 bfloat16 half float double int8 int16 int32 int64 uint8 uint16 uint32 uint64 short int
    long bool complex64 complex128 qint8 quint8 qint32 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz
    float8_e8m0fnu strided contiguous_format channels_last
    """
    ),
    "torch.jit._pickle": words(
        "build_intlist build_doublelist build_boollist build_tensorlist restore_type_tag build_tensor_from_id"
    ),
    "sklearn._loss.loss": words(
        """
    HalfSquaredError HalfMultinomialLoss HalfBinomialLoss HalfPoissonLoss HalfTweedieLossIdentity HalfGammaLoss
    AbsoluteError PinballLoss HuberLoss ExponentialLoss HalfTweedieLoss
    """
    ),
    "sklearn._loss._loss": frozenset(
        f"{prefix}{name}"
        for prefix in ("", "__pyx_unpickle_")
        for name in words(
            """
            CyHalfSquaredError CyHalfMultinomialLoss CyHalfBinomialLoss CyHalfPoissonLoss CyHalfGammaLoss CyHuberLoss
            CyHalfTweedieLossIdentity CyHalfTweedieLoss CyAbsoluteError CyPinballLoss CyExponentialLoss
            """
        )
    ),
    "sklearn._loss.link": words("IdentityLink Interval LogLink LogitLink HalfLogitLink MultinomialLogit"),
    "sklearn.linear_model._sgd_fast": words("Hinge SquaredHinge Log ModifiedHuber SquaredLoss Huber"),
    "sklearn.gaussian_process.kernels": words("RBF ConstantKernel Product Sum WhiteKernel Matern"),
}
_MODULES_OF_TORCH: Final = words(
    """
    Sequential ModuleList ModuleDict ParameterList Linear Bilinear Identity Conv1d Conv2d Conv3d ConvTranspose1d
    ConvTranspose2d BatchNorm1d BatchNorm2d BatchNorm3d LayerNorm GroupNorm InstanceNorm1d InstanceNorm2d RMSNorm
    ReLU ReLU6 GELU SiLU Sigmoid Tanh Softmax LogSoftmax LeakyReLU ELU Hardswish Mish PReLU Dropout Dropout1d
    Dropout2d Embedding EmbeddingBag RNN LSTM GRU MaxPool1d MaxPool2d AvgPool1d AvgPool2d AdaptiveAvgPool1d
    AdaptiveAvgPool2d AdaptiveMaxPool2d Flatten Unflatten Upsample ZeroPad2d MultiheadAttention
    NonDynamicallyQuantizableLinear TransformerEncoder TransformerEncoderLayer TransformerDecoder
    TransformerDecoderLayer PixelShuffle
    """
)
_ESTIMATORS: Final = words(
    """
    ARDRegression AdaBoostClassifier AdaBoostRegressor AdditiveChi2Sampler AffinityPropagation
    AgglomerativeClustering BaggingClassifier BaggingRegressor BayesianGaussianMixture BayesianRidge BernoulliNB
    BernoulliRBM Binarizer Birch BisectingKMeans CCA CalibratedClassifierCV CategoricalNB ClassicalMDS
    ClassifierChain ColumnTransformer ComplementNB CountVectorizer DBSCAN DecisionTreeClassifier
    DecisionTreeRegressor DictVectorizer DictionaryLearning DummyClassifier DummyRegressor ElasticNet ElasticNetCV
    EllipticEnvelope EmpiricalCovariance ExtraTreeClassifier ExtraTreeRegressor ExtraTreesClassifier
    ExtraTreesRegressor FactorAnalysis FastICA FeatureAgglomeration FeatureHasher FeatureUnion
    FixedThresholdClassifier FrozenEstimator GammaRegressor GaussianMixture GaussianNB GaussianProcessClassifier
    GaussianProcessRegressor GaussianRandomProjection GenericUnivariateSelect GradientBoostingClassifier
    GradientBoostingRegressor GraphicalLasso GraphicalLassoCV GridSearchCV HDBSCAN HashingVectorizer
    HistGradientBoostingClassifier HistGradientBoostingRegressor HuberRegressor IncrementalPCA IsolationForest
    Isomap IsotonicRegression KBinsDiscretizer KMeans KNNImputer KNeighborsClassifier KNeighborsRegressor
    KNeighborsTransformer KernelCenterer KernelDensity KernelPCA KernelRidge LabelBinarizer LabelEncoder
    LabelPropagation LabelSpreading Lars LarsCV Lasso LassoCV LassoLars LassoLarsCV LassoLarsIC
    LatentDirichletAllocation LedoitWolf LinearDiscriminantAnalysis LinearRegression LinearSVC LinearSVR
    LocalOutlierFactor LocallyLinearEmbedding LogisticRegression LogisticRegressionCV MDS MLPClassifier
    MLPRegressor MaxAbsScaler MeanShift MinCovDet MinMaxScaler MiniBatchDictionaryLearning MiniBatchKMeans
    MiniBatchNMF MiniBatchSparsePCA MissingIndicator MultiLabelBinarizer MultiOutputClassifier
    MultiOutputRegressor MultiTaskElasticNet MultiTaskElasticNetCV MultiTaskLasso MultiTaskLassoCV MultinomialNB
    NMF NearestCentroid NearestNeighbors NeighborhoodComponentsAnalysis Normalizer NuSVC NuSVR Nystroem OAS OPTICS
    OneClassSVM OneHotEncoder OneVsOneClassifier OneVsRestClassifier OrdinalEncoder OrthogonalMatchingPursuit
    OrthogonalMatchingPursuitCV OutputCodeClassifier PCA PLSCanonical PLSRegression PLSSVD
    PassiveAggressiveClassifier PassiveAggressiveRegressor PatchExtractor Perceptron Pipeline PoissonRegressor
    PolynomialCountSketch PolynomialFeatures PowerTransformer QuadraticDiscriminantAnalysis QuantileRegressor
    QuantileTransformer RANSACRegressor RBFSampler RFE RFECV RadiusNeighborsClassifier RadiusNeighborsRegressor
    RadiusNeighborsTransformer RandomForestClassifier RandomForestRegressor RandomTreesEmbedding
    RandomizedSearchCV RegressorChain Ridge RidgeCV RidgeClassifier RidgeClassifierCV RobustScaler SGDClassifier
    SGDOneClassSVM SGDRegressor SVC SVR SelectFdr SelectFpr SelectFromModel SelectFwe SelectKBest SelectPercentile
    SelfTrainingClassifier SequentialFeatureSelector ShrunkCovariance SimpleImputer SkewedChi2Sampler SparseCoder
    SparsePCA SparseRandomProjection SpectralBiclustering SpectralClustering SpectralCoclustering
    SpectralEmbedding SplineTransformer StackingClassifier StackingRegressor StandardScaler TSNE TargetEncoder
    TfidfTransformer TfidfVectorizer TheilSenRegressor TransformedTargetRegressor TruncatedSVD
    TunedThresholdClassifierCV TweedieRegressor VarianceThreshold VotingClassifier VotingRegressor
    """
)
"""Estimators of scikit-learn: releases move them between modules. FunctionTransformer runs what it is given."""


@lru_cache(maxsize=4096)
def judged(module: str, name: str) -> Verdict:
    """How dangerous it is to import a name, and so to call it: SAFE, SUSPICIOUS or UNSAFE."""
    module = _renamed(module)
    path = f"{module}.{name}"
    if _dangerous(module, name, path):
        return Verdict.UNSAFE
    return Verdict.SAFE if _harmless(module, name, path) else Verdict.SUSPICIOUS


def _renamed(module: str) -> str:
    top, dot, rest = module.partition(".")
    return f"{_OLD_NAMES.get(top, top)}{dot}{rest}"


def _dangerous(module: str, name: str, path: str) -> bool:
    parts = path.split(".")
    beginnings = {".".join(parts[:count]) for count in range(1, len(parts) + 1)}
    if path in _HARMLESS:
        return False
    if module == "builtins" and ("." in name or name in _DANGEROUS_BUILTINS):
        return True
    if any(part.startswith("__") and part.endswith("__") for part in name.split(".")) and "." in name:
        return True
    return bool(beginnings & _DANGEROUS_MODULES or beginnings & _DANGEROUS)


def _harmless(module: str, name: str, path: str) -> bool:
    if path in _HARMLESS or name in _HARMLESS_IN.get(module, ()):
        return True
    if module.startswith("torch.nn.modules."):
        return name in _MODULES_OF_TORCH and module.count(".") == 3
    return module.startswith("sklearn.") and name in _ESTIMATORS
