"""The data that stages read: index, images, masks, augmentation."""
