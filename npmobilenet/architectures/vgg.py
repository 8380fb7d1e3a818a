"""VGG19's features, by whose statistics and differences the style of pictures is measured (1409.1556; Gatys, 2016)."""

from npmobilenet.architectures.architecture import Architecture
from npmobilenet.architectures.blocks import Conventions

STAGES = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))  # convolutions, channels

# Papers call what the first convolution of the third stage gives, with its ReLU, relu3_1; here it is a block.
LAYERS = dict(
    zip(
        [f"relu{stage}_{place}" for stage, (repeats, _) in enumerate(STAGES, 1) for place in range(1, repeats + 1)],
        ["stem", *(f"block{number}" for number in range(1, sum(repeats for repeats, _ in STAGES)))],
        strict=True,
    )
)
STYLE = tuple(f"relu{stage}_1" for stage in range(1, 6))
CONTENT = "relu4_2"

VGG19 = Architecture(
    name="vgg19",
    paper="VGG19 without its linear layers, 1409.1556, Table 1, E",
    activation="relu",
    conventions=Conventions(norms=False),
    rows=tuple(
        row
        for number, (repeats, channels) in enumerate(STAGES)
        for row in (f"conv_r{repeats}_k3_c{channels}", *(("maxpool_k2_s2",) if number < len(STAGES) - 1 else ()))
    ),
    outputs={name: LAYERS[name] for name in (*STYLE, CONTENT)},
)
