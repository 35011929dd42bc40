"""What leaves for devices: ONNX export, bundles, scoring."""
