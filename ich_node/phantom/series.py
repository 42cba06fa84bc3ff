"""A phantom as the CT Image Storage objects a scanner would send (PS3.3 A.3)."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

from ich_node.phantom.geometry import image_orientation_patient, image_position_patient, slice_centre_z_mm
from ich_node.phantom.settings import FIELD_OF_VIEW_MM, PhantomSettings
from ich_node.phantom.volume import draw_volume

RESCALE_INTERCEPT: Final = -1024
LARGEST_STORED: Final = 4095
"""Of 12 bits."""
SECONDS_PER_SLICE: Final = 0.5


@dataclass(frozen=True, slots=True)
class SeriesUids:
    """The UIDs that every object of a series shares."""

    study: str
    series: str
    frame_of_reference: str


def make_series(settings: PhantomSettings) -> list[Dataset]:
    """Return one CT object per slice, the lowest first, with file meta information in Explicit VR Little Endian."""
    uids = series_uids(settings)
    begun = settings.acquired_at or datetime.now().astimezone()
    stored = stored_values(draw_volume(settings))
    objects = []
    for index in range(settings.slices):
        instance = ct_object(new_uid(settings, f"slice {index}"))
        describe_patient_and_study(instance, settings, uids, begun)
        describe_acquisition(instance, settings, begun + timedelta(seconds=index * SECONDS_PER_SLICE))
        describe_slice(instance, settings, index)
        describe_pixels(instance, stored[index])
        objects.append(instance)
    return objects


def write_series(directory: Path, settings: PhantomSettings) -> list[Path]:
    """Write the series into ``directory``, made if it is not there, as 0001.dcm and so on; return the paths."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, instance in enumerate(make_series(settings), start=1):
        path = directory / f"{number:04d}.dcm"
        instance.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def series_uids(settings: PhantomSettings) -> SeriesUids:
    """Return the UIDs asked for, and new ones for the rest."""
    return SeriesUids(
        study=settings.study_instance_uid or new_uid(settings, "study"),
        series=settings.series_instance_uid or new_uid(settings, "series"),
        frame_of_reference=new_uid(settings, "frame of reference"),
    )


def new_uid(settings: PhantomSettings, role: str) -> str:
    """Return a fresh UID, or the one that ``uid_seed`` always gives for this role."""
    if settings.uid_seed is None:
        return str(generate_uid())
    series = settings.series_instance_uid or ""
    return str(generate_uid(entropy_srcs=["ich-node phantom", settings.uid_seed, series, role]))


def stored_values(hu: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return Hounsfield units as 12-bit stored values."""
    stored: NDArray[np.uint16] = np.clip(np.rint(hu) - RESCALE_INTERCEPT, 0, LARGEST_STORED).astype(np.uint16)
    return stored


def ct_object(sop_instance_uid: str) -> Dataset:
    """Return an empty CT object with its file meta information (PS3.10 7.1)."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    instance = Dataset()
    instance.file_meta = meta
    instance.SpecificCharacterSet = "ISO_IR 100"
    instance.SOPClassUID = CTImageStorage
    instance.SOPInstanceUID = UID(sop_instance_uid)
    return instance


def describe_patient_and_study(instance: Dataset, settings: PhantomSettings, uids: SeriesUids, begun: datetime) -> None:
    """Fill the modules of patient, study, series and equipment (PS3.3 C.7.1 to C.7.5)."""
    instance.PatientName = settings.patient_name
    instance.PatientID = settings.patient_id
    instance.PatientBirthDate = "19500101"
    instance.PatientSex = "O"
    instance.PatientAge = "076Y"
    instance.StudyInstanceUID = uids.study
    instance.SeriesInstanceUID = uids.series
    instance.FrameOfReferenceUID = uids.frame_of_reference
    instance.PositionReferenceIndicator = "OM"
    instance.StudyDate = instance.SeriesDate = begun.strftime("%Y%m%d")
    instance.StudyTime = instance.SeriesTime = begun.strftime("%H%M%S")
    instance.StudyID = "1"
    instance.SeriesNumber = 2
    instance.AccessionNumber = settings.accession_number
    instance.ReferringPhysicianName = "Referring^Physician"
    instance.StudyDescription = "CT HEAD W/O CONTRAST"
    instance.SeriesDescription = "HEAD 5.0 AXIAL"
    instance.ProtocolName = "HEAD ROUTINE"
    instance.BodyPartExamined = "HEAD"
    instance.Modality = "CT"
    instance.Manufacturer = "ich-node"
    instance.ManufacturerModelName = "Synthetic head phantom"
    instance.InstitutionName = "Synthetic data"
    instance.StationName = "PHANTOM"
    instance.DeviceSerialNumber = "1"
    instance.SoftwareVersions = "1"


def describe_acquisition(instance: Dataset, settings: PhantomSettings, acquired: datetime) -> None:
    """Fill the acquisition part of the CT Image Module (PS3.3 C.8.2.1)."""
    instance.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    instance.AcquisitionDate = instance.ContentDate = acquired.strftime("%Y%m%d")
    instance.AcquisitionTime = instance.ContentTime = acquired.strftime("%H%M%S.%f")
    instance.AcquisitionNumber = 1
    instance.ScanOptions = "AXIAL MODE"
    instance.KVP = "120"
    instance.XRayTubeCurrent = 250
    instance.ExposureTime = 1000
    instance.Exposure = 250
    instance.FilterType = "HEAD FILTER"
    instance.GeneratorPower = 30
    instance.FocalSpots = "1.2"
    instance.ConvolutionKernel = "STANDARD"
    instance.RotationDirection = "CW"
    instance.DataCollectionDiameter = "250"
    instance.ReconstructionDiameter = f"{FIELD_OF_VIEW_MM:g}"
    instance.DistanceSourceToDetector = "949.075"
    instance.DistanceSourceToPatient = "541"
    instance.TableHeight = "150"
    instance.GantryDetectorTilt = f"{settings.gantry_tilt_degrees:g}"


def describe_slice(instance: Dataset, settings: PhantomSettings, index: int) -> None:
    """Fill the Image Plane Module (PS3.3 C.7.6.2)."""
    spacing = f"{settings.pixel_spacing_mm:.8g}"
    instance.PatientPosition = "HFS"
    instance.ImagePositionPatient = [f"{value:.6f}" for value in image_position_patient(settings, index)]
    instance.ImageOrientationPatient = [f"{value:.7g}" for value in image_orientation_patient(settings)]
    instance.PixelSpacing = [spacing, spacing]
    instance.SliceThickness = f"{settings.slice_spacing_mm:g}"
    instance.SliceLocation = f"{slice_centre_z_mm(settings, index):.4f}"
    instance.InstanceNumber = index + 1


def describe_pixels(instance: Dataset, stored: NDArray[np.uint16]) -> None:
    """Fill the Image Pixel Module and the ways to show it (PS3.3 C.7.6.3, C.11.2)."""
    instance.SamplesPerPixel = 1
    instance.PhotometricInterpretation = "MONOCHROME2"
    instance.Rows, instance.Columns = stored.shape
    instance.BitsAllocated = 16
    instance.BitsStored = 12
    instance.HighBit = 11
    instance.PixelRepresentation = 0
    instance.RescaleIntercept = str(RESCALE_INTERCEPT)
    instance.RescaleSlope = "1"
    instance.RescaleType = "HU"
    instance.WindowCenter = "40"
    instance.WindowWidth = "80"
    instance.PixelData = stored.astype("<u2").tobytes()
