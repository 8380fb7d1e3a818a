"""Inside PyTorch: export a trained model, with all that belongs to its weights.

python examples/export_from_pytorch.py OUTPUT.safetensors     (needs torch and torchvision)
"""

import sys

from torchvision.models import mobilenet_v2

import npmobilenet

model = mobilenet_v2(num_classes=3)  # yours, trained
preprocessing = npmobilenet.Preprocessing(
    resize=256, crop=(224, 224), crop_fraction=None, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)
about = {"classes": ["rose", "tulip", "daisy"], "preprocessing": preprocessing.to_dict(), "licence": "MIT"}
print(npmobilenet.export_weights(model.state_dict(), sys.argv[1], metadata=about))
