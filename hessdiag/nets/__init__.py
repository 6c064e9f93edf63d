"""The papers' networks, training tasks and initializations. This catalogue imports no torch: listing it is instant."""

BUILTINS: dict[str, tuple[str, str]] = {
    "mlp": (
        "hessdiag.nets.mlp:MLP",
        "an MLP: depth, width, in_features, out_features, activation, init, bias, batchnorm, residual, parametrization",
    ),
    "lenet": (
        "hessdiag.nets.convnet:LeNet",
        "the classic 2-conv, 3-linear network; 62,006 parameters on 3x32x32",
    ),
    "convnet": ("hessdiag.nets.convnet:ConvNet", "a small convolutional classifier"),
    "fcn": (
        "hessdiag.nets.fcn:FCN",
        "image to image: depth, channels, kernel, padding='zeros'|'circular', resolution, batchnorm, residual",
    ),
    "resnet": (
        "hessdiag.nets.resnet:ResNet",
        "stripped bottleneck ResNet: depth=50|101|152|500, channels, wide, big, batchnorm, residual",
    ),
    "chain": ("hessdiag.nets.chain:Chain", "the width-one linear network: a product of `length` scalars"),
}

TASKS: dict[str, tuple[str, str]] = {  # models with the data that they are trained on, and how optimizers are compared
    "deep_mlp": (
        "hessdiag.nets.tasks.deep_mlp:deep_mlp",
        "task: a narrow deep ReLU MLP and a teacher's 512 samples: depth, width, init",
    ),
    "neural_chain": (
        "hessdiag.nets.tasks.neural_chain:neural_chain",
        "task: half of (1 - product of scalars)^2: length, start, spread",
    ),
    "noisy_chain": (
        "hessdiag.nets.tasks.neural_chain:noisy_chain",
        "task: the same with a random slope for each sample: length, start, noise",
    ),
    "quadratic": (
        "hessdiag.nets.tasks.quadratic:quadratic",
        "task: a quadratic of two weights: kind='well'|'ill'|'rotated'",
    ),
    "autoencoder": (
        "hessdiag.nets.tasks.autoencoder:autoencoder",
        "task: sigmoids 64-48-24-8-4-8-24-48-64 on images of four latent numbers",
    ),
    "pixel_cnn": (
        "hessdiag.nets.tasks.pixel_cnn:pixel_cnn",
        "task: draws digits pixel by pixel, 94,696 parameters: size, samples",
    ),
    "stripped_resnet": (
        "hessdiag.nets.tasks.resnets:stripped_resnet",
        "task: 500 layers without skips and normalization, on digits: depth, channels, resolution, init",
    ),
    "resnet18": (
        "hessdiag.nets.tasks.resnets:resnet18",
        "task: ResNet-18 for small images, on digits; 11,173,962 parameters: width, resolution, samples",
    ),
    "gpt": (
        "hessdiag.nets.gpt:gpt",
        "task: a small GPT, a made-up language: layers, width, heads, vocabulary, context, sequences, parametrization",
    ),
    "bowl": (
        "hessdiag.nets.tasks.bowl:bowl",
        "task: a quadratic whose centre wanders: dim, steps, noise, covariance='isotropic'|'hessian'|'inverse'",
    ),
    "rosenbrock": (
        "hessdiag.nets.tasks.rosenbrock:rosenbrock",
        "task: Rosenbrock's valley from (-0.5, 2), two parameters, 200 steps",
    ),
}

INITS: dict[str, str] = {
    "lecun": "U[-1/sqrt(fan_in), 1/sqrt(fan_in)], variance 1/(3 fan_in): torch's own nn.Linear default",
    "lecun_normal": "normal, variance 1/fan_in",
    "lecun_variance": "uniform, variance 1/fan_in",
    "xavier_uniform": "uniform, variance 2/(fan_in + fan_out)",
    "xavier_normal": "normal, variance 2/(fan_in + fan_out)",
    "he_uniform": "uniform, variance 2/fan_in",
    "he_normal": "normal, variance 2/fan_in",
    "orthogonal": "a random orthogonal matrix (semi-orthogonal where not square)",
}

ACTIVATIONS: dict[str, str] = {
    "linear": "the identity",
    "relu": "max(x, 0)",
    "leaky_relu": "x where positive, 0.01 x elsewhere",
    "tanh": "hyperbolic tangent",
    "gelu": "x times the normal distribution function, exact",
}
