"""Studies: what the papers claim, computed and measured here. One module per topic, `npmobilenet study TOPIC`.

Every module has a function ``study``, whose parameters are the topic's options, and which returns a
:class:`~npmobilenet.bench.study.study.Study`: tables of text, numbers for JSON, and a picture.

``cost``               dense and depthwise separable convolutions (1704.04861, section 3.1)
``relu_manifold``      what ReLU leaves of a curve (1801.04381, Figure 1 and appendix A)
``linear_bottleneck``  what ReLU6 in the bottlenecks would destroy (1801.04381, section 3.2 and Figure 7)
``memory``             activation memory, planned and measured (1801.04381, section 5.1 and Table 3)
``multipliers``        width and resolution (1704.04861, section 3.3 and 3.4; 1801.04381, section 6.1)
``mixed``              kernel sizes and their mixtures (1907.09595, section 3)
``features``           the feature maps of a photograph
``occlusion``          which part of a photograph its label rests on (1311.2901, section 4.2)
``style``              style and content of two photographs, layer by layer (Gatys, 2016)
``scale``              a billion images: hours, and what has to keep up (docs/scale.md)
``asm``                machine code of the kernels, parsed by ``machine_code``
"""
