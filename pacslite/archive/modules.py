"""Which attributes describe a patient, a study, a series (PS3.3 §C.7.1 to §C.7.5); all others describe an instance.

Only top-level attributes: what is inside a sequence goes with the sequence.
"""

from collections.abc import Mapping

__all__ = ["PATIENT_MODULES", "SERIES_MODULES", "STUDY_MODULES"]


def _tags(text: str) -> Mapping[int, str]:
    """Keyword by tag from lines of ``ggggeeee Keyword``."""
    words = text.split()
    return {int(tag, 16): keyword for tag, keyword in zip(words[::2], words[1::2], strict=True)}


# Patient (§C.7.1.1), Clinical Trial Subject (§C.7.1.3)
PATIENT_MODULES = _tags("""
00081120 ReferencedPatientSequence
00100010 PatientName
00100020 PatientID
00100021 IssuerOfPatientID
00100022 TypeOfPatientID
00100024 IssuerOfPatientIDQualifiersSequence
00100026 SourcePatientGroupIdentificationSequence
00100027 GroupOfPatientsIdentificationSequence
00100030 PatientBirthDate
00100032 PatientBirthTime
00100033 PatientBirthDateInAlternativeCalendar
00100034 PatientDeathDateInAlternativeCalendar
00100035 PatientAlternativeCalendar
00100040 PatientSex
00100050 PatientInsurancePlanCodeSequence
00100101 PatientPrimaryLanguageCodeSequence
00100200 QualityControlSubject
00100212 StrainDescription
00100213 StrainNomenclature
00101000 OtherPatientIDs
00101001 OtherPatientNames
00101002 OtherPatientIDsSequence
00101005 PatientBirthName
00101040 PatientAddress
00101060 PatientMotherBirthName
00101080 MilitaryRank
00101090 MedicalRecordLocator
00101100 ReferencedPatientPhotoSequence
00102150 CountryOfResidence
00102152 RegionOfResidence
00102154 PatientTelephoneNumbers
00102160 EthnicGroup
001021F0 PatientReligiousPreference
00102201 PatientSpeciesDescription
00102202 PatientSpeciesCodeSequence
00102292 PatientBreedDescription
00102293 PatientBreedCodeSequence
00102294 BreedRegistrationSequence
00102297 ResponsiblePerson
00102298 ResponsiblePersonRole
00102299 ResponsibleOrganization
00104000 PatientComments
00120010 ClinicalTrialSponsorName
00120020 ClinicalTrialProtocolID
00120021 ClinicalTrialProtocolName
00120030 ClinicalTrialSiteID
00120031 ClinicalTrialSiteName
00120040 ClinicalTrialSubjectID
00120042 ClinicalTrialSubjectReadingID
00120081 ClinicalTrialProtocolEthicsCommitteeName
00120082 ClinicalTrialProtocolEthicsCommitteeApprovalNumber
""")

# General Study (§C.7.2.1), Patient Study (§C.7.2.2), Clinical Trial Study (§C.7.2.3)
STUDY_MODULES = _tags("""
00080020 StudyDate
00080030 StudyTime
00080050 AccessionNumber
00080051 IssuerOfAccessionNumberSequence
00080080 InstitutionName
00080090 ReferringPhysicianName
00080096 ReferringPhysicianIdentificationSequence
0008009C ConsultingPhysicianName
0008009D ConsultingPhysicianIdentificationSequence
00080201 TimezoneOffsetFromUTC
00081030 StudyDescription
00081032 ProcedureCodeSequence
00081048 PhysiciansOfRecord
00081049 PhysiciansOfRecordIdentificationSequence
00081060 NameOfPhysiciansReadingStudy
00081062 PhysiciansReadingStudyIdentificationSequence
00081080 AdmittingDiagnosesDescription
00081084 AdmittingDiagnosesCodeSequence
00081110 ReferencedStudySequence
00082112 SourceImageSequence
00101010 PatientAge
00101020 PatientSize
00101021 PatientSizeCodeSequence
00101022 PatientBodyMassIndex
00101023 MeasuredAPDimension
00101024 MeasuredLateralDimension
00101030 PatientWeight
00102000 MedicalAlerts
00102110 Allergies
00102180 Occupation
001021A0 SmokingStatus
001021B0 AdditionalPatientHistory
001021C0 PregnancyStatus
001021D0 LastMenstrualDate
00102203 PatientSexNeutered
00120050 ClinicalTrialTimePointID
00120051 ClinicalTrialTimePointDescription
00120052 LongitudinalTemporalOffsetFromEvent
00120053 LongitudinalTemporalEventType
00120083 ConsentForClinicalTrialUseSequence
0020000D StudyInstanceUID
00200010 StudyID
00201070 OtherStudyNumbers
00321032 RequestingPhysician
00321033 RequestingService
00321034 RequestingServiceCodeSequence
00321060 RequestedProcedureDescription
00321064 RequestedProcedureCodeSequence
00380010 AdmissionID
00380014 IssuerOfAdmissionIDSequence
00380060 ServiceEpisodeID
00380062 ServiceEpisodeDescription
00380064 IssuerOfServiceEpisodeIDSequence
00380500 PatientState
00401012 ReasonForPerformedProcedureCodeSequence
""")

# General and Clinical Trial Series (§C.7.3.1, .2), Frame of Reference (§C.7.4.1), General Equipment (§C.7.5.1)
SERIES_MODULES = _tags("""
00080021 SeriesDate
00080031 SeriesTime
00080060 Modality
00080064 ConversionType
00080070 Manufacturer
00080081 InstitutionAddress
0008103E SeriesDescription
0008103F SeriesDescriptionCodeSequence
00081010 StationName
00081040 InstitutionalDepartmentName
00081041 InstitutionalDepartmentTypeCodeSequence
00081050 PerformingPhysicianName
00081052 PerformingPhysicianIdentificationSequence
00081070 OperatorsName
00081072 OperatorIdentificationSequence
00081090 ManufacturerModelName
00081111 ReferencedPerformedProcedureStepSequence
00081250 RelatedSeriesSequence
00082218 AnatomicRegionSequence
00120060 ClinicalTrialCoordinatingCenterName
00120071 ClinicalTrialSeriesID
00120072 ClinicalTrialSeriesDescription
00180015 BodyPartExamined
00181000 DeviceSerialNumber
00181002 DeviceUID
00181008 GantryID
00181020 SoftwareVersions
00181030 ProtocolName
00181050 SpatialResolution
00181200 DateOfLastCalibration
00181201 TimeOfLastCalibration
00185100 PatientPosition
0020000E SeriesInstanceUID
00200011 SeriesNumber
00200052 FrameOfReferenceUID
00200060 Laterality
00201040 PositionReferenceIndicator
00280108 SmallestPixelValueInSeries
00280109 LargestPixelValueInSeries
00280120 PixelPaddingValue
00400244 PerformedProcedureStepStartDate
00400245 PerformedProcedureStepStartTime
00400250 PerformedProcedureStepEndDate
00400251 PerformedProcedureStepEndTime
00400253 PerformedProcedureStepID
00400254 PerformedProcedureStepDescription
00400260 PerformedProtocolCodeSequence
00400275 RequestAttributesSequence
00400280 CommentsOnThePerformedProcedureStep
""")
