"""Where pictures, tags and masks come from: built-in scenes, VOC, COCO, or a folder of one's own."""
