from .augment import Augmentation as Augmentation
from .augment import build_compose as build_compose
from .corruptions import CORRUPTIONS as CORRUPTIONS
from .corruptions import corrupt as corrupt
from .dataset import Dataset as Dataset
from .dataset import Split as Split
from .dataset import describe as describe
from .dataset import fingerprint as fingerprint
from .image_files import ImageFiles as ImageFiles
from .image_files import read_image as read_image
from .load import DATASETS as DATASETS
from .load import load_data as load_data
from .loaders import Batch as Batch
from .loaders import ResidentBatches as ResidentBatches
from .loaders import StreamedBatches as StreamedBatches
from .loaders import preview_augmentation as preview_augmentation
from .photo_augment import OnDevice as OnDevice
from .photo_augment import PhotoAugmentation as PhotoAugmentation
from .planting import plant as plant
from .shapes.truth import PlantedTruth as PlantedTruth

__all__ = [
    "CORRUPTIONS",
    "DATASETS",
    "Augmentation",
    "Batch",
    "Dataset",
    "ImageFiles",
    "OnDevice",
    "PhotoAugmentation",
    "PlantedTruth",
    "ResidentBatches",
    "Split",
    "StreamedBatches",
    "build_compose",
    "corrupt",
    "describe",
    "fingerprint",
    "load_data",
    "plant",
    "preview_augmentation",
    "read_image",
]
