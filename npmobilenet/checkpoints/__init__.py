"""Reading and writing weights: PyTorch's ``.pth``, ``.safetensors`` and ``.npz``, with NumPy alone.

``read_checkpoint`` turns a file into ``{name: array}`` without running or importing anything it names;
``export_weights`` writes such a mapping. The modules, from the outside in:

==================== ==================================================================================
``reader``           ``read_checkpoint``: recognises the format and puts the parts together
``file_kinds``       which format a file has, judged by its content, and what the others are called
``torch_file``       ``torch.save``'s zip format and the legacy format before it
``unpickler``        a pickle interpreter that builds plain containers only
``safetensors_file`` the safetensors format
``npz_file``         NumPy's ``.npz``
``zip_archive``      checked views of the members of a zip archive
``stored_tensor``    a tensor inside a file: checked bounds, data types, conversion to an array
``state_dicts``      which dict of a nested checkpoint holds the weights, and which prefixes go
``export``           ``export_weights``
``dialects``         how publishers name and build networks, as data; ``key_maps`` is the language
``fit``              which network has such tensors; ``heads``: which of them are its classifier
``publisher_config`` what timm and Hugging Face write into ``config.json`` beside their weights
``settle``           all that belongs to the weights, from whoever knows it best
==================== ==================================================================================
"""

from npmobilenet.checkpoints.export import export_weights
from npmobilenet.checkpoints.reader import Checkpoint, read_checkpoint

__all__ = ["Checkpoint", "export_weights", "read_checkpoint"]
