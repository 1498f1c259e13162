from .augment import Augmentation as Augmentation
from .batches import ResidentBatches as ResidentBatches
from .compose import build_compose as build_compose
from .corruptions import CORRUPTIONS as CORRUPTIONS
from .corruptions import corrupt as corrupt
from .dataset import Dataset as Dataset
from .dataset import Split as Split
from .describe import describe as describe
from .describe import fingerprint as fingerprint
from .image_files import ImageFiles as ImageFiles
from .load import DATASETS as DATASETS
from .load import load_data as load_data
from .pictures import read_image as read_image
from .plan import Batch as Batch
from .preview import preview_augmentation as preview_augmentation
from .shapes import PlantedTruth as PlantedTruth
from .streamed import StreamedBatches as StreamedBatches

__all__ = [
    "CORRUPTIONS",
    "DATASETS",
    "Augmentation",
    "Batch",
    "Dataset",
    "ImageFiles",
    "PlantedTruth",
    "ResidentBatches",
    "Split",
    "StreamedBatches",
    "build_compose",
    "corrupt",
    "describe",
    "fingerprint",
    "load_data",
    "preview_augmentation",
    "read_image",
]
