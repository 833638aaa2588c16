"""Masks in the formats that other tools read: PASCAL VOC, COCO and YOLO."""
