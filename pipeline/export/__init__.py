"""Export of masks to the formats of other tools: PASCAL VOC, COCO and YOLO."""
