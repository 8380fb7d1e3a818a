"""Reading and writing weights: PyTorch's ``.pth``, ``.safetensors``, ``.npz`` and TensorFlow's, with NumPy alone.

``read_checkpoint`` turns a file into ``{name: array}`` without running or importing anything it names;
``export_weights`` writes such a mapping. The modules, from the outside in:

==================== ==================================================================================
``reader``           ``read_checkpoint``: recognises the format and puts the parts together
``file_kinds``       which format a file has, judged by its content, and what the others are called
``model_folder``     folders of the Hugging Face hub: indices of several files, ``config.json``
``compressed``       gzip, bzip2, xz
``torch_file``       ``torch.save``'s zip format, the legacy format before it, and plain pickles
``torch_names``      what the functions and classes of PyTorch in a pickle stand for
``numpy_array``      the same of NumPy's; element types
``unpickler``        a pickle interpreter that builds plain containers and placeholders only
``foreign``          the placeholders for Python objects that have no meaning here
``safetensors_file`` the safetensors format
``npz_file``         NumPy's ``.npz`` and ``.npy``
``tensorflow_graph`` TensorFlow's frozen graphs; ``protobuf``: the format of their bytes
``tensorflow_js``    manifests of TensorFlow.js
``tflite``           TFLite; ``flatbuffer``: the format of its bytes
``tensorflow_names`` what TensorFlow calls parameters, and where it has their axes
``layer_roles``      weights and biases told by the operations that read them
``zip_archive``      checked views of the members of a zip archive
``json_text``        JSON of unknown origin
``stored_tensor``    a tensor inside a file: checked bounds, data types, conversion to an array
``quantised``        tensors of integers with scales; ``affine``: with scales and minima
``allowance``        how much memory and work a file of some size may cause
``state_dicts``      which dict of a nested checkpoint holds the weights, and which prefixes go
``modules``          the weights of a whole pickled module
``info``             what `export_weights` writes beside the tensors, checked
``fit``, ``key_maps`` which network the tensors are
``export``           ``export_weights``
``dialects``         how publishers name and build networks, as data; ``key_maps`` is the language
``class_lists``      classes of data sets
``fit``              which network has such tensors; ``heads``: which of them are its classifier
``file_names``       what the file calls the layers of its network, and what PyTorch's modules compute
``publisher_config`` what timm and Hugging Face write into ``config.json`` beside their weights
``settle``           all that belongs to the weights, from whoever knows it best
==================== ==================================================================================
"""

from npmobilenet.checkpoints.export import export_weights
from npmobilenet.checkpoints.reader import Checkpoint, read_checkpoint

__all__ = ["Checkpoint", "export_weights", "read_checkpoint"]
