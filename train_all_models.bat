@echo off
rem The whole training pipeline: dataset, hyperparameter search, retrain (fit, evaluate, gate, publish, prune).
rem
rem   train_all_models.bat                                        from the archive, with the settings of .env
rem   set MINUTES=0 and train_all_models.bat                      without the search
rem   train_all_models.bat --events FILE --items FILE --no-lease  from files, without Redis; further options go to retrain
rem
rem PYTHON names the interpreter, WORK the folder of what lies between the steps.
setlocal
cd /d "%~dp0"
if not defined WORK set "WORK=data\training"
if not defined MINUTES set "MINUTES=15"
rem "set MINUTES=0 & train_all_models.bat" sets a space too.
set "MINUTES=%MINUTES: =%"
if not defined PYTHON (
    if exist .venv\Scripts\python.exe (set "PYTHON=.venv\Scripts\python.exe") else (set "PYTHON=python")
)
rem "call" below: python may be a .bat itself, as with pyenv-win, which would not come back without it.
if not exist "%WORK%" mkdir "%WORK%"
rem No quotes around the value: it has its own, which would end there, and a folder such as "R&D" would be cut.
set ALL=%*
if "%MINUTES%"=="0" goto retrain

rem "dataset" knows --events alone; everything else is for "retrain".
set "EVENTS="
:next
if "%~1"=="" goto dataset
if "%~1"=="--events" set "EVENTS=%~2"
shift
goto next

:dataset
if defined EVENTS (
    call "%PYTHON%" -m training dataset --output "%WORK%\dataset" --events "%EVENTS%" || exit /b 1
) else (
    call "%PYTHON%" -m training dataset --output "%WORK%\dataset" || exit /b 1
)
call "%PYTHON%" -m training tune als --dataset "%WORK%\dataset" --minutes %MINUTES% --study "%WORK%\tune.sqlite" --output "%WORK%\hyperparameters.json" || exit /b 1
set ALL=%ALL% --hyperparameters "%WORK%\hyperparameters.json"

:retrain
call "%PYTHON%" -m training retrain %ALL%
exit /b %ERRORLEVEL%
