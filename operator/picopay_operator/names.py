"""Names, labels and annotations: everything by which the operator knows its objects again. Constants.

Used by all modules that make or find objects. None of it may change once there are engines: objects would be
orphaned, and selectors of Deployments cannot change.
"""

GROUP = "picopay.io"
VERSION = "v1beta1"
KIND = "PicoPayEngine"
PLURAL = "picopayengines"
SINGULAR = "picopayengine"
SHORT_NAME = "ppe"
CATEGORY = "picopay"
API_VERSION = f"{GROUP}/{VERSION}"

FIELD_MANAGER = "picopay-operator"
