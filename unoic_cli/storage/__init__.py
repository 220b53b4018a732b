"""Where bytes lie: `names` says what a typed name means, `objects` reads remote ranges, `files` whatever is opened."""

from unoic_cli.storage.files import File as File
from unoic_cli.storage.files import check_stamp as check_stamp
from unoic_cli.storage.files import close_file as close_file
from unoic_cli.storage.files import described as described
from unoic_cli.storage.files import first_bytes as first_bytes
from unoic_cli.storage.files import local_stamp as local_stamp
from unoic_cli.storage.files import open_file as open_file
from unoic_cli.storage.names import base_name as base_name
from unoic_cli.storage.names import refuse_output as refuse_output
from unoic_cli.storage.names import refuse_remote as refuse_remote
from unoic_cli.storage.names import split_name as split_name
from unoic_cli.storage.objects import RemoteFile as RemoteFile
from unoic_cli.storage.objects import listing as listing
from unoic_cli.urls import SCHEMES as SCHEMES
from unoic_cli.urls import foreign_scheme as foreign_scheme
from unoic_cli.urls import is_remote as is_remote
from unoic_cli.urls import scrub as scrub
from unoic_cli.urls import shown as shown
from unoic_cli.urls import split_url as split_url
