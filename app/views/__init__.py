"""Read models: how rows read, for the API and the pages alike."""

from app.views.curves import CurvesOut as CurvesOut
from app.views.curves import MetricsOut as MetricsOut
from app.views.curves import PreviewsOut as PreviewsOut
from app.views.curves import metrics as metrics
from app.views.curves import previews as previews
from app.views.history import AttemptOut as AttemptOut
from app.views.history import EventOut as EventOut
from app.views.history import EventPage as EventPage
from app.views.history import LogPage as LogPage
from app.views.history import WorkerOut as WorkerOut
from app.views.history import attempts as attempts
from app.views.history import event_out as event_out
from app.views.history import events as events
from app.views.history import log as log
from app.views.history import workers as workers
from app.views.jobs import JobOut as JobOut
from app.views.jobs import JobPage as JobPage
from app.views.jobs import JobSummary as JobSummary
from app.views.jobs import StepOut as StepOut
from app.views.jobs import job_out as job_out
from app.views.jobs import page_of_jobs as page_of_jobs
from app.views.jobs import summaries as summaries
from app.views.results import ArtifactsOut as ArtifactsOut
from app.views.results import ResultsOut as ResultsOut
from app.views.results import artifacts as artifacts
from app.views.results import results as results
